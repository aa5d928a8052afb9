-- SPDX-License-Identifier: MIT
-- All devices that ship, whichever there are: fake time is all the time they know, and what a state
-- has is all that they go by.

local class = require "lunavisor.class"
local describe_device = require("lunavisor.device").describe
local device = require "lunavisor.device"
local luna = require "lunavisor"
local random = require "spec.support.device"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"

local MODELS = "lua/lunavisor/device/models"

-- What a model needs to be as much as it can be.
local OPTIONS = {
  mc146818 = function() return { time = 1700000000 } end,
  cfi_flash = function() return { image = assert(luna.buffer "64K") } end,
  i82077 = function() return { drive0 = assert(luna.buffer "160K") } end,
  fw_cfg = function() return { items = { [5] = "\1\0" } } end,
}

-- Goes by the machine's time itself, not by how long it has been there: the refresh of memory.
local ABSOLUTE = { system_ports = true }

-- The classes of devices among the models, by name.
local function classes()
  local found = {}
  local list = assert(io.popen("ls " .. MODELS .. "/*.lua"))
  for path in list:lines() do
    local name = path:match "([^/]+)%.lua$"
    local ok, made = pcall(require, "lunavisor.device.models." .. name)
    assert(ok, made)
    if device.is(made) == "class" then found[name] = made end
  end
  list:close()
  return found
end

local MADE = classes()
local NAMES = sorted(MADE)

local function new(name)
  local options = OPTIONS[name] and OPTIONS[name]() or {}
  options.log, options.clock, options.dma = false, device.clock(), device.memory(4096)
  return MADE[name](options)
end

-- Does random things and lets time pass; what the guest read, and what the lines did, as text.
local function drive(dev, next, count)
  local regions, lines, seen = random.regions(dev), device.layout(dev).lines, {}
  for i = 1, count do
    local region = regions[next(#regions) + 1]
    local value = random.access(dev, region, next)
    if value ~= nil then seen[#seen + 1] = ("%d %s %s"):format(i, region.name, u64.hex(value)) end
    if i % 4 == 0 then dev.clock:advance(next(1000) / 1e5) end
    for _, about in ipairs(lines) do
      if dev.lines[about.name] then seen[#seen + 1] = ("%d %s up"):format(i, about.name) end
    end
  end
  return seen
end

local function copy_buffer(from, to)
  if class.of(from) == "buffer" then to:write(0, from:read(0, from.size)) end
end

-- The buffers that a state says it is without.
local function copy_buffers(saved, from, to)
  for _, name in ipairs(saved.without) do copy_buffer(rawget(from, name), rawget(to, name)) end
  for name, value in pairs(from.options) do copy_buffer(value, to.options[name]) end
end

local function first_difference(one, other)
  for i = 1, math.max(#one, #other) do
    if one[i] ~= other[i] then
      return ("%s, and %s"):format(tostring(one[i]), tostring(other[i]))
    end
  end
  return nil
end

describe("the models", function()
  it("are there", function()
    for _, name in ipairs { "uart16550", "i8259", "i8254", "lapic", "ioapic", "pci_host" } do
      assert.truthy(MADE[name], name)
    end
  end)

  for _, name in ipairs(NAMES) do
    it(name .. " does the same in every run, by fake time alone", function()
      local time, clock = os.time, os.clock
      local calls = 0
      local function count() -- luacheck: ignore
        calls = calls + 1
        return calls
      end
      os.time, os.clock = count, count -- luacheck: ignore
      local ok, problem = pcall(function()
        for seed = 1, 2 do
          local one = drive(new(name), random.numbers(seed), 300)
          local other = drive(new(name), random.numbers(seed), 300)
          local difference = first_difference(one, other)
          assert(not difference, difference)
        end
      end)
      os.time, os.clock = time, clock -- luacheck: ignore
      assert(ok, problem)
      assert.equal(0, calls)
    end)

    it(name .. " goes on from a state as if nothing had been", function()
      for seed = 1, 2 do
        local next = random.numbers(seed)
        local dev, twin = new(name), new(name)
        drive(dev, next, 200)
        if ABSOLUTE[name] then twin.clock:advance(dev.now) end
      local saved = dev:save()
      assert(twin:load(saved))
      copy_buffers(saved, dev, twin)
        local difference = first_difference(drive(dev, random.numbers(seed + 100), 200),
          drive(twin, random.numbers(seed + 100), 200))
        assert.is_nil(difference)
      end
    end)

    it(name .. " has a datasheet", function()
      assert.truthy(describe_device(MADE[name]):find("# " .. MADE[name].name, 1, true))
      assert.is_string(describe_device(MADE[name], "svg"))
    end)
  end
end)
