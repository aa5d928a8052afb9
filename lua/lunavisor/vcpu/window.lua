-- SPDX-License-Identifier: MIT
-- cpu:window for controllers in Lua, whose lines change while the vCPU may be running on a thread.

--- Asks for an exit when the guest takes an interrupt, or not any more. A vCPU that is started
--- stands still meanwhile.
return function(cpu, on)
  local started = cpu.started
  if started then cpu:pause() end
  cpu:window(on)
  if started then cpu:resume() end
end
