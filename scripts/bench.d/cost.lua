-- SPDX-License-Identifier: MIT
-- What the library itself costs an exit, without KVM: nanoseconds of an exit whose handler is a Lua
-- function over the fake KVM of the tests, less those of the fake's KVM_RUN when C calls it.

local rounds = require "rounds"
local luna = require "lunavisor"

local EXITS, ROUNDS = 20000, 30

local function write(device, _, _, value)
  device.value = value
  device.left = device.left - 1
  if device.left == 0 then device.cpu:stop() end
end

local function base()
  return rounds.raw("base", EXITS) / EXITS * 1e9
end

local function medians()
  local vm = assert(luna.vm())
  local device = { cpu = assert(vm:vcpu { mode = "real" }), write = write }
  vm:pio(rounds.PORT, 1, device)
  rounds.run(device, EXITS)
  local costs = {}
  for i = 1, ROUNDS do costs[i] = rounds.run(device, EXITS) / EXITS * 1e9 - base() end
  vm:close()
  return rounds.median(costs)
end

local function measure()
  local fake = require "fake_kvm"
  fake.install()
  fake.endless_pio(rounds.PORT, 1, false)
  local samples = rounds.samples(medians)
  fake.remove()
  return samples
end

return {
  { name = "cost", unit = "ns", limit = { luajit = 100, lua54 = 300 }, measure = measure },
  { name = "cost_base", unit = "ns", engine = "luajit",
    measure = function() return rounds.samples(base) end },
}
