-- SPDX-License-Identifier: MIT
-- luna repl: a prompt, with the VM of a script before its guest runs, or without any.

local firsts = require "lunavisor.program.first"
local say = require "lunavisor.program.say"

local M = { about = "Look at a script's VM at a prompt." }

local EPILOG = [[
Examples:
  luna repl
  luna repl hello.lua

The prompt comes before the script's guest runs for the first time, or when the
script has ended; help shows the commands. leave lets the script go on.]]

function M.describe(command)
  command:usage "Usage: luna repl [--accel NAME] [--socket PATH] [SCRIPT [ARGUMENT...]]"
  command:argument("script", "The script; none for a prompt alone."):args "?"
  command:option("--accel", "What runs VMs whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
  command:option("--socket", "A Unix socket for a program, with JSON, in the prompt's place.")
    :argname "PATH"
  command:epilog(EPILOG)
end

-- Asks; ends the program unless the script is to go on.
local function ask(names, options)
  local how, message = require("lunavisor.repl").ask(names, options.socket)
  if not how then os.exit(say.cannot("%s", message)) end
  if how == "leave" then return end
  io.stdout:flush()
  os.exit(0)
end

function M.run(options)
  if not options.script then
    if options.accel then require("lunavisor.vm.accel").prefer(options.accel) end
    ask({}, options)
    return 0
  end
  local first = firsts.new(function(vm, cpu) ask({ vm = vm, cpu = cpu }, options) end)
  local status = require("lunavisor.program.run").run { script = options.script,
    rest = options.rest, accel = options.accel }
  if status == 0 and not first.came then ask({ vm = first:last() }, options) end
  return status
end

return M
