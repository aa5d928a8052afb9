-- SPDX-License-Identifier: MIT
-- The PCs that the clients run in: luna.machine's, with no more than each has a use for, and how
-- their programs end.

local luna = require "lunavisor"

local M = {}

--- A PC without a screen. Its run ends with the value "off" when its power is turned off.
function M.new(options)
  options.devices = options.devices or {}
  if options.devices.vga == nil then options.devices.vga = false end
  return assert(luna.machine("pc", options))
end

--- Runs it, for so many seconds where they are given. Ends this program: with status 0 where the
--- run has ended with `value`, else with what the vCPU was at and status 1.
function M.finish(vm, value, seconds)
  local exit, message
  if #vm.vcpus == 1 then
    exit, message = vm.vcpus[1]:run { timeout = seconds }
  else
    vm:start()
    exit, message = vm:run { timeout = seconds }
  end
  if not exit then error(message, 0) end
  if exit.value ~= value then
    io.stdout:write("\n", tostring(exit), "\n")
    local code = exit.cpu and exit.cpu:disasm(8)
    if code then print(code) end
  end
  os.exit(exit.value == value and 0 or 1, true)
end

return M
