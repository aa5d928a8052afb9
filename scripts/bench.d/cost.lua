-- SPDX-License-Identifier: MIT
-- What the library itself costs an exit, without KVM: nanoseconds of an exit whose handler is a Lua
-- function over the fake KVM of the tests, less those of the fake's KVM_RUN when C calls it; how
-- many calls into the kernel it makes; and the same of a handler that reads and writes a register.

local rounds = require "rounds"
local luna = require "lunavisor"
local fake = require "fake_kvm"

local EXITS, ROUNDS = 5000, 60

local function count_down(device)
  device.left = device.left - 1
  if device.left == 0 then device.cpu:stop() end
end

local function write(device, _, _, value)
  device.value = value
  count_down(device)
end

local function write_register(device)
  local cpu = device.cpu
  cpu.rcx = cpu.rcx + 1
  count_down(device)
end

-- Measures with a vCPU over the fake, which writes to the device's port for ever.
local function over_fake(handler, measure)
  return function()
    fake.install()
    fake.endless_pio(rounds.PORT, 1, false)
    local samples = rounds.samples(function()
      local vm = assert(luna.vm())
      local device = { cpu = assert(vm:vcpu { mode = "real" }), write = handler }
      vm:pio(rounds.PORT, 1, device)
      local sample = measure(device)
      vm:close()
      return sample
    end)
    fake.remove()
    return samples
  end
end

local function base()
  return rounds.raw("base", EXITS)
end

local function cost(device)
  return rounds.difference(function() return rounds.run(device, EXITS) end, base, ROUNDS, EXITS)
end

-- Once the vCPU has run, and everything about it has been asked that is asked once.
local function calls(device)
  rounds.run(device, EXITS)
  local before = fake.calls()
  rounds.run(device, EXITS)
  return (fake.calls() - before) / EXITS
end

local function figure(name, unit, limit, handler, measure)
  return { name = name, unit = unit, limit = limit, measure = over_fake(handler, measure) }
end

return {
  figure("cost", "ns", { luajit = 100, lua54 = 300 }, write, cost),
  figure("calls", "ioctls", 1.01, write, calls),
  figure("register_cost", "ns", { luajit = 200, lua54 = 900 }, write_register, cost),
  figure("register_calls", "ioctls", 1.01, write_register, calls),
  { name = "cost_base", unit = "ns", engine = "luajit",
    measure = function()
      return rounds.samples(rounds.difference, base, function() return 0 end, ROUNDS, EXITS)
    end },
}
