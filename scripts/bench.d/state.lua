-- SPDX-License-Identifier: MIT
-- cpu:state() and cpu:set_state(), each after an exit, so that nothing of the vCPU is known,
-- against the ioctls of a C program that read and write the same.

local rounds = require "rounds"

local HLT = "f4  eb fd" -- next: hlt; jmp next
local OUT = "ba 10 00  ee  eb fd" -- mov dx, 0x10; next: out dx, al; jmp next
local SIZE, COUNT = 0x8000, 20

local function session()
  local luna = require "lunavisor"
  local vm, cpu, ram = rounds.guest(HLT, SIZE)
  rounds.raw("guest", SIZE, OUT)
  local function ours()
    local begin = luna.clock()
    for _ = 1, COUNT do
      assert(cpu:run())
      local state = cpu:state()
      assert(cpu:run())
      assert(cpu:set_state(state))
    end
    return luna.clock() - begin
  end
  local function theirs() return rounds.raw("state", COUNT) end
  rounds.ratio(ours, theirs, 3) -- warms up
  local sample = rounds.ratio(ours, theirs, rounds.ROUNDS)
  vm:close()
  ram:close()
  return sample
end

return {
  { name = "state", unit = "x", limit = 1.10,
    measure = function() return rounds.samples(session) end },
}
