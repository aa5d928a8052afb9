-- SPDX-License-Identifier: MIT
-- What it costs to look at a run: the time of a guest on the software CPU that comes to a device in
-- Lua all 2000 instructions, with luna run's --stats and --report, as ratios to the time without;
-- and the nanoseconds that --trace adds to an exit over the fake KVM of the tests.

local rounds = require "rounds"
local fake = require "fake_kvm"
local luna = require "lunavisor"
local meters = require "lunavisor.vm.meter"

local CODE = "b9 e8 03 49 75 fd e6 10 eb f6" -- mov cx, 1000; dec cx; jnz; out 0x10, al; jmp back
local MEMORY = 0x8000
local SECONDS, PAIRS = 0.2, 8 -- of a round: long enough for all that is done now and then

local function guest()
  local vm, ram = assert(luna.vm { accel = "soft" }), assert(luna.buffer(MEMORY))
  assert(vm:map_space(0, ram, 0, MEMORY, "rwx"))
  ram:write(rounds.CODE, rounds.bytes(CODE))
  local cpu = assert(vm:vcpu { mode = "real", rip = rounds.CODE })
  local device = { cpu = cpu, write = function(self)
    self.left = self.left - 1
    if self.left == 0 then self.cpu:stop() end
  end }
  vm:pio(rounds.PORT, 1, device)
  return { vm = vm, ram = ram, device = device }
end

local function close(one)
  one.vm:close()
  one.ram:close()
end

-- How many exits take so long.
local function exits_of(one)
  local count = 1000
  while true do
    local begin = luna.clock()
    rounds.run(one.device, count)
    local taken = luna.clock() - begin
    if taken > SECONDS / 4 then return math.ceil(count * SECONDS / taken) end
    count = count * 4
  end
end

-- sample(with, without, exits) of the least times of a guest that is measured by `kind` and of one
-- that is not.
local function measured(kind, sample)
  local plain = guest()
  local made = kind()
  meters.add(made)
  local other = guest()
  meters.remove(made)
  local count = exits_of(plain)
  local with, without = math.huge, math.huge
  for _ = 1, PAIRS do
    without = math.min(without, rounds.run(plain.device, count))
    with = math.min(with, rounds.run(other.device, count))
  end
  close(other)
  close(plain)
  return sample(with, without, count)
end

-- ---- A trace ----

local EXITS, ROUNDS = 2000, 40

local function device_of(vm)
  local device = { cpu = assert(vm:vcpu { mode = "real" }), write = function(self)
    self.left = self.left - 1
    if self.left == 0 then self.cpu:stop() end
  end }
  vm:pio(rounds.PORT, 1, device)
  return device
end

local function trace_cost()
  local made = assert(require("lunavisor.measure.trace").new "/dev/null")
  local plain = device_of(assert(luna.vm()))
  meters.add(made)
  local other = device_of(assert(luna.vm()))
  meters.remove(made)
  local cost = rounds.difference(function() return rounds.run(other, EXITS) end,
    function() return rounds.run(plain, EXITS) end, ROUNDS, EXITS)
  for _, device in ipairs { plain, other } do device.cpu.vm:close() end
  made:close()
  return cost
end

return {
  { name = "trace_cost", unit = "ns", limit = 2000, measure = function()
    fake.install()
    fake.endless_pio(rounds.PORT, 1, false)
    local samples = rounds.samples(trace_cost)
    fake.remove()
    return samples
  end },
  { name = "stats", unit = "x", limit = 1.03, measure = function()
    return rounds.samples(measured, require("lunavisor.measure.stats").new,
      function(with, without) return with / without end)
  end },
  { name = "report", unit = "x", limit = 1.05, measure = function()
    return rounds.samples(measured, function()
      return assert(require("lunavisor.measure.report").new("/dev/null", { title = "",
        version = "" }))
    end, function(with, without) return with / without end)
  end },
}
