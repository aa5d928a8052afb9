-- SPDX-License-Identifier: MIT
-- String I/O through a device with blocks against one that takes element by element: how many times
-- the bytes per second. On KVM, 64 KiB by rep insb, which it brings in batches, and some by rep
-- outsb, which it brings one by one; and over the fake KVM of the tests, batches of 1024, where
-- what remains is the library's own part. And how soon a run with a deadline ends (deadline.c).

local luna = require "lunavisor"
local rounds = require "rounds"

local SIZE, ROUNDS, WARM_UP = 0x10000, 12, 2
local BATCH, BATCHES = 1024, 64

-- mov edi, 0x20000; mov esi, edi; mov ecx, SIZE; mov edx, 0x10; rep ..; out 0x11, al; jmp
local PROGRAM = "bf 00 00 02 00  89 fe  b9 %s  ba 10 00 00 00  f3 %s  e6 11  eb e9"
local INSB, OUTSB = "00 00 01 00", "00 08 00 00" -- the sizes: 64 KiB, 2 KiB
local opcode_of = { [INSB] = "6c", [OUTSB] = "6e" }

local BLOCK = ("x"):rep(SIZE)

local with_blocks = {
  read_block = function(_, _, size, count) return BLOCK:sub(1, size * count) end,
  write_block = function(device, _, _, data) device.count = device.count + #data end,
  count = 0,
}

local by_elements = {
  read = function() return 0x78 end,
  write = function(device) device.count = device.count + 1 end,
  count = 0,
}

-- A guest in ring 3, where KVM batches, whose device can be changed; gives a function that measures
-- a round, and one that ends it.
local function guest(size)
  local vm, ram = assert(luna.vm()), assert(luna.buffer "256K")
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  ram:write(rounds.CODE, rounds.bytes(PROGRAM:format(size, opcode_of[size])))
  local cpu = assert(vm:vcpu { mode = "user", rip = rounds.CODE })
  vm:pio(0x11, 1, { write = function() cpu:stop() end })
  local trap
  return function(device)
    if trap then trap:close() end
    trap = vm:pio(rounds.PORT, 1, device)
    local begin = luna.clock()
    local exit = assert(cpu:run { timeout = 60 })
    local time = luna.clock() - begin
    assert(exit.kind == "stopped", tostring(exit))
    return time
  end, function()
    vm:close()
    ram:close()
  end
end

local function faster(size)
  local run, close = guest(size)
  local function elements() return run(by_elements) end
  local function blocks() return run(with_blocks) end
  rounds.ratio(elements, blocks, WARM_UP)
  local sample = rounds.ratio(elements, blocks, ROUNDS)
  close()
  return sample
end

-- The same over the fake, whose KVM_RUN gives a batch at next to no cost.
local function own_part()
  local fake = require "fake_kvm"
  fake.install()
  fake.endless_batch(rounds.PORT, BATCH)
  local vm = assert(luna.vm())
  local cpu = assert(vm:vcpu { mode = "real" })
  local trap
  local function run(device, calls)
    if trap then trap:close() end
    trap = vm:pio(rounds.PORT, 1, device)
    device.cpu = cpu
    return rounds.run(device, calls)
  end
  local elements = {
    read = function(device)
      device.left = device.left - 1
      if device.left == 0 then device.cpu:stop() end
      return 0x78
    end,
  }
  local blocks = {
    read_block = function(device, _, size, count)
      device.left = device.left - 1
      if device.left == 0 then device.cpu:stop() end
      return BLOCK:sub(1, size * count)
    end,
  }
  local function ours() return run(elements, BATCH * BATCHES) end
  local function theirs() return run(blocks, BATCHES) end
  rounds.ratio(ours, theirs, WARM_UP)
  local sample = rounds.ratio(ours, theirs, ROUNDS)
  vm:close()
  fake.remove()
  return sample
end

return {
  -- What KVM takes for the exits is in both. Where that is much, as on a nested KVM, the elements
  -- are too cheap for blocks to be 5 times as fast; blocks_own is without KVM's part.
  { name = "insb_blocks", unit = "x", least = 5,
    measure = function() return rounds.samples(faster, INSB) end },
  { name = "outsb_blocks", unit = "x", least = 0.95,
    measure = function() return rounds.samples(faster, OUTSB) end },
  { name = "blocks_own", unit = "x", least = 5,
    measure = function() return rounds.samples(own_part) end },
  { name = "deadline", unit = "x", limit = 1.2, engine = "luajit",
    measure = function() return rounds.collect "deadline deadline" end },
}
