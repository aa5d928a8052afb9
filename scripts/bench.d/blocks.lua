-- SPDX-License-Identifier: MIT
-- String I/O through a device with blocks. On KVM, rep insb, which it brings in batches, and rep
-- outsb, which it brings one by one, against a C program that takes a block at once; and how many
-- times as fast as element by element insb is. Over the fake KVM of the tests, batches of 1024,
-- where what remains is the library's own part. And how soon a run with a deadline ends
-- (deadline.c).

local luna = require "lunavisor"
local rounds = require "rounds"

local SIZE, ROUNDS = 0x4000, 30
local BATCH, BATCHES = 1024, 64

-- mov dx, 0x10; next: mov di, 0x2000; mov cx, SIZE; rep insb; jmp next, and with si and outsb
local INSB = "ba 10 00  bf 00 20  b9 00 40  f3 6c  eb f6"
local OUTSB = "ba 10 00  be 00 20  b9 00 40  f3 6e  eb f6"

local BLOCK = ("x"):rep(SIZE)

local function count_down(device, count)
  device.left = device.left - count
  if device.left <= 0 then device.cpu:stop() end
end

local with_blocks = {
  read_block = function(device, _, size, count)
    count_down(device, count)
    return BLOCK:sub(1, size * count)
  end,
  write_block = function(device, _, size, data) count_down(device, #data / size) end,
}

local by_elements = {
  read = function(device)
    count_down(device, 1)
    return 0x78
  end,
}

local function against_c(code, exits)
  return rounds.exits { code = code, device = with_blocks, exits = exits, verb = "blocks" }
end

-- How many times as fast blocks are as elements; `prepare` makes a vCPU that reads from the port.
local function gain(prepare)
  local vm, cpu, close = prepare()
  local trap
  local function timed(handlers)
    local device = { cpu = cpu }
    for name, handler in pairs(handlers) do device[name] = handler end
    return function()
      if trap then trap:close() end
      trap = vm:pio(rounds.PORT, 1, device)
      return rounds.run(device, BATCH * BATCHES)
    end
  end
  local sample = rounds.ratio(timed(by_elements), timed(with_blocks), ROUNDS)
  close()
  return sample
end

local function on_kvm()
  local vm, cpu, ram = rounds.guest(INSB, 0x8000)
  return vm, cpu, function()
    vm:close()
    ram:close()
  end
end

local function over_fake()
  local fake = require "fake_kvm"
  fake.install()
  fake.endless_batch(rounds.PORT, BATCH)
  local vm = assert(luna.vm())
  return vm, assert(vm:vcpu { mode = "real" }), function()
    vm:close()
    fake.remove()
  end
end

return {
  { name = "insb_blocks", unit = "x", limit = { luajit = 1.20, lua54 = 1.60 },
    measure = function() return against_c(INSB, BATCH * 16) end },
  { name = "outsb_blocks", unit = "x", limit = { luajit = 1.20, lua54 = 1.40 },
    measure = function() return against_c(OUTSB, rounds.EXITS) end },
  { name = "insb_gain", unit = "x",
    measure = function() return rounds.samples(gain, on_kvm) end },
  { name = "blocks_own", unit = "x", least = 5,
    measure = function() return rounds.samples(gain, over_fake) end },
  { name = "deadline", unit = "x", limit = 1.2, engine = "luajit",
    measure = function() return rounds.collect "deadline deadline" end },
}
