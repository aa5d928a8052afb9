-- SPDX-License-Identifier: MIT
-- luna gdb: a script whose guest gdb has, on the other end of a pipe, before it runs for the first
-- time.

local channel = require "lunavisor.device.models.channel"
local firsts = require "lunavisor.program.first"
local raw = require "lunavisor.binding.backend"
local say = require "lunavisor.program.say"

local M = { about = "Let gdb have a script's VM, on a pipe." }

local EPILOG = [[
Examples:
  gdb -ex "target remote | luna gdb hello.lua"

gdb has the guest before it runs for the first time. What the script prints is
on the standard error. detach lets the script go on, kill ends it.]]

function M.describe(command)
  command:usage "Usage: luna gdb [--accel {kvm,soft,auto}] [--bits N] SCRIPT [ARGUMENT...]"
  command:argument("script", "The script.")
  command:option("--accel", "What runs VMs whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
  command:option("--bits", "16, 32 or 64: the registers that gdb is shown, where not\n"
    .. "those of the code at which the guest begins."):choices { "16", "32", "64" }:argname "N"
  command:epilog(EPILOG)
end

-- gdb's end of the pipe: what else is printed goes to the standard error.
local function take_pipe()
  local made, message = channel.stdio { keep = 2 ^ 22, period = false }
  if not made then return nil, message end
  local ok
  ok, message = raw.stream_replace(1, 2)
  return ok and made, message
end

local function finish(ending)
  if ending == "detached" then return end
  io.stdout:flush()
  os.exit(0)
end

local function serve(pipe, vm, options)
  local server = require("lunavisor.gdb.server").new(vm, pipe, tonumber(options.bits))
  local ending = server:serve()
  server:close()
  finish(ending)
end

--- Status 0 when gdb has ended it, else that of the script, or of what it lets go on.
function M.run(options)
  local pipe, message = take_pipe()
  if not pipe then return say.cannot("%s", message) end
  local first = firsts.new(function(vm) serve(pipe, vm, options) end)
  local status = require("lunavisor.program.run").run { script = options.script,
    rest = options.rest, accel = options.accel }
  if first.came or status ~= 0 then return status end
  local vm = first:last()
  if not vm or #vm.vcpus == 0 then
    return say.cannot("%s has made no VM with a vCPU that is open at its end", options.script)
  end
  serve(pipe, vm, options)
  say.line("%s", tostring(vm:run()))
  return 0
end

return M
