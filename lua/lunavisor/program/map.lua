-- SPDX-License-Identifier: MIT
-- luna map: a picture of what of a machine, or of a script's VM, is where.

local say = require "lunavisor.program.say"

local M = { about = "Draw what of a VM is where, as SVG." }

local EPILOG = [[
Examples:
  luna map --machine microvm
  luna map -o pc.svg
  luna map -o board.svg board.lua

Of a script: its first VM, before its guest runs.]]

function M.describe(command)
  command:argument("script", "The script; none for a machine."):args "?"
  command:option("-o --output", "The file; the standard output without it."):argname "FILE"
  command:option("--machine", "pc, microvm or bare.", "pc"):choices { "pc", "microvm", "bare" }
  command:epilog(EPILOG)
end

local function put(options, text)
  if not options.output then
    io.stdout:write(text)
    return 0
  end
  local file, message = io.open(options.output, "wb")
  if not file then return say.cannot("--output: %s", message) end
  local ok, problem = file:write(text)
  local closed, last = file:close()
  if ok and closed then return 0 end
  return say.cannot("--output: %s: %s", options.output, problem or last)
end

-- The picture of the first VM that the script runs, or has left open. nil, status.
local function of_script(options)
  local picture, last
  local kind = { begin = function(vm)
    last = last or vm
    local part = {}
    function part.enter()
      picture = require("lunavisor.measure.map").svg(vm)
      os.exit(put(options, picture), true)
    end
    function part.close() picture = picture or require("lunavisor.measure.map").svg(vm) end
    return part
  end }
  require("lunavisor.vm.meter").add(kind)
  local status = require("lunavisor.program.run").run { script = options.script,
    rest = options.rest }
  if status ~= 0 then return nil, status end
  if not picture and last then picture = require("lunavisor.measure.map").svg(last) end
  if picture then return picture end
  return nil, say.cannot("%s makes no VM", options.script)
end

--- Status 0; what the script's is where that fails, 126 where nothing can be drawn.
function M.run(options)
  if options.script then
    local picture, status = of_script(options)
    return picture and put(options, picture) or status
  end
  local vm, message = require("lunavisor").machine(options.machine)
  if not vm then return say.cannot("%s", message) end
  local picture = require("lunavisor.measure.map").svg(vm)
  vm:close()
  return put(options, picture)
end

return M
