-- SPDX-License-Identifier: MIT
-- cpu:state() and cpu:set_state(), each after an exit, so that nothing of the vCPU is known,
-- against the ioctls of a C program that read and write the same; and how many calls into the
-- kernel they make, over the fake KVM.

local rounds = require "rounds"

local HLT = "f4  eb fd" -- next: hlt; jmp next
local OUT = "ba 10 00  ee  eb fd" -- mov dx, 0x10; next: out dx, al; jmp next
local SIZE, COUNT = 0x8000, 20

local function session()
  local vm, cpu, ram = rounds.guest(HLT, SIZE)
  rounds.raw("guest", SIZE, OUT)
  local function ours()
    local begin = rounds.clock()
    for _ = 1, COUNT do
      assert(cpu:run())
      local state = cpu:state()
      assert(cpu:run())
      assert(cpu:set_state(state))
    end
    return rounds.clock() - begin
  end
  local function theirs() return rounds.raw("state", COUNT) end
  local sample = rounds.ratio(ours, theirs, rounds.ROUNDS)
  vm:close()
  ram:close()
  return sample
end

local function calls()
  local luna = require "lunavisor"
  local fake = require "fake_kvm"
  fake.install()
  local vm = assert(luna.vm())
  local cpu = assert(vm:vcpu { mode = "real" })
  local before
  for i = 1, COUNT + 1 do
    if i == 2 then before = fake.calls() end
    assert(cpu:run())
    local state = assert(cpu:state())
    assert(cpu:run())
    assert(cpu:set_state(state))
  end
  local sample = (fake.calls() - before) / COUNT
  vm:close()
  fake.remove()
  return { sample }
end

return {
  { name = "state", unit = "x", limit = { luajit = 1.45, lua54 = 1.70 },
    measure = function() return rounds.samples(session) end },
  { name = "state_calls", unit = "ioctls", limit = 16, measure = calls },
}
