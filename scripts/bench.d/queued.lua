-- SPDX-License-Identifier: MIT
-- Prints samples of what an exit costs that is queued from a vCPU's thread to the Lua thread, as a
-- ratio to the same exit in cpu:run. In a process of its own, since it needs two CPUs.

package.path = arg[0]:match "^(.*)/" .. "/?.lua;" .. package.path
local rounds = require "rounds"

local EXITS, PAIRS = 200, 60

local vm, cpu = rounds.guest("ba 10 00  ee  eb fd", 0x8000) -- mov dx, 0x10; next: out dx, al; jmp
local second = assert(vm:vcpu { mode = "real" })
local left
vm:pio(rounds.PORT, 1, { write = function()
  left = left - 1
  if left == 0 then cpu:stop() end
end })

-- A second vCPU is started, and stays out of the guest: so the first has a thread.
local function timed(object)
  return function()
    left = EXITS
    if object == vm then assert(second:start() and second:pause()) end
    local begin = rounds.clock() -- of all threads
    local exit = assert(object:run { timeout = 60 })
    assert(exit.kind == "stopped", tostring(exit))
    return rounds.clock() - begin
  end
end

for _ = 1, rounds.SESSIONS do
  print(("%.6g"):format(rounds.ratio(timed(vm), timed(cpu), PAIRS)))
end
