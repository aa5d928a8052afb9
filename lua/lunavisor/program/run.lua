-- SPDX-License-Identifier: MIT
-- luna run: a Lua script, with the library where it looks for it.

local say = require "lunavisor.program.say"

local M = { about = "Run a Lua script." }

function M.describe(command)
  command:argument("script", "The script, or - for the standard input.")
  command:usage "Usage: luna run [--accel {kvm,soft,auto}] SCRIPT [ARGUMENT...]"
  command:option("--accel", "What runs VMs whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
end

local function traceback(message)
  if type(message) == "table" and getmetatable(message) == nil then return message end
  return debug.traceback(tostring(message), 2)
end

--- Status 0 when the script has returned, 1 when it has raised; os.exit has its own.
function M.run(options)
  if options.accel then require("lunavisor.vm.accel").prefer(options.accel) end
  local name, rest = options.script, options.rest or {}
  local chunk, problem = loadfile(name ~= "-" and name or nil)
  if not chunk then
    return say.cannot("%s", problem)
  end
  local given = { [-1] = "luna", [0] = name }
  for i, value in ipairs(rest) do given[i] = value end
  _G.arg = given
  local ok, message = xpcall(function() chunk((table.unpack or unpack)(rest)) end, traceback)
  io.stdout:flush()
  if ok then return 0 end
  say.line("%s", tostring(message))
  return 1
end

return M
