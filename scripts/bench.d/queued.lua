-- SPDX-License-Identifier: MIT
-- Prints samples of what an exit costs that is queued from a vCPU's thread to the Lua thread, as a
-- ratio to the same exit in cpu:run. In a process of its own, since it needs two CPUs.

package.path = arg[0]:match "^(.*)/" .. "/?.lua;" .. package.path
local rounds = require "rounds"

local EXITS, PAIRS = 200, 60

local vm, cpu, _, write = rounds.writer()
local second = assert(vm:vcpu { mode = "real" })

-- A second vCPU is started, and stays out of the guest: so the first has a thread.
local function timed(object)
  return function()
    if object == vm then assert(second:start() and second:pause()) end
    local begin = rounds.clock() -- of all threads
    write(object, EXITS)
    return rounds.clock() - begin
  end
end

for _ = 1, rounds.SESSIONS do
  print(("%.6g"):format(rounds.ratio(timed(vm), timed(cpu), PAIRS)))
end
