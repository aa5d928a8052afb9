-- SPDX-License-Identifier: MIT
-- The tests that a device's table gives by itself: those of the device as a whole.

local chance = require "lunavisor.testing.chance"
local derive = require "lunavisor.testing.derive"
local models = require "lunavisor.testing.model"
local shapes = require "lunavisor.testing.shape"
local u64 = require "lunavisor.text.u64"

local M = {}

local bus_of = derive.bus
local MANY, SEEDS = 200, 3 -- accesses of a test, and how often it is tried

-- ---- Comparing ----

-- Where two plain values differ: a path, the one, the other; nil where they are the same.
local function difference(one, other, path)
  if type(one) ~= "table" or type(other) ~= "table" then
    if one == other then return nil end
    return path, tostring(one), tostring(other)
  end
  for key, value in pairs(one) do
    local at, a, b = difference(value, other[key], path .. "." .. tostring(key))
    if at then return at, a, b end
  end
  for key, value in pairs(other) do
    if one[key] == nil then return path .. "." .. tostring(key), "nil", tostring(value) end
  end
  return nil
end

local function compare(one, other, what)
  local path, a, b = difference(one.registers, other.registers, ".registers")
  if not path then path, a, b = difference(one, other, "") end
  if not path then return nil end
  return ("%s: %s was %s and is %s"):format(what, path:sub(2), a, b)
end

-- Lets the same accesses be made on both; the first answer that is not the same.
local function answers_differ(self, one, other, seed, what)
  local random = chance.new(seed)
  for number = 1, MANY do
    local access = chance.access(random, self.shape)
    local _, first = models.perform(one, access)
    local _, second = models.perform(other, access)
    local same = type(first) == type(second) and (type(first) == "string" or first == second)
    if not same then
      return ("%s: access %d, a %s, gives %s and %s"):format(what, number,
        models.text(self.shape, access),
        u64.exact(first) ~= nil and u64.hex(first) or tostring(first),
        u64.exact(second) ~= nil and u64.hex(second) or tostring(second))
    end
  end
  return compare(one.device:save(), other.device:save(), what)
end

local function exercise(self, bus, seed)
  local random = chance.new(seed)
  for _ = 1, MANY do models.perform(bus, chance.access(random, self.shape)) end
end

-- A bus whose device has come to some state.
local function used(self, seed)
  local bus = bus_of(self)
  exercise(self, bus, seed)
  return bus
end

-- ---- Accesses ----

local function against_model(self, seed)
  local bus = bus_of(self)
  local model, random = models.new(self.shape, bus), chance.new(seed)
  for number = 1, MANY do
    local wrong = model:access(chance.access(random, self.shape))
    if wrong then return ("access %d (seed %d): %s"):format(number, seed, wrong) end
  end
  return nil
end

local function time_passes(self)
  local bus, random = bus_of(self), chance.new(5)
  for number = 1, MANY do
    local access = chance.access(random, self.shape)
    local seconds = random(1000) / 1e6
    local ok, why = pcall(bus.pass, bus, seconds)
    if not ok then return ("after access %d, %g s raise: %s"):format(number - 1, seconds, why) end
    ok, why = models.perform(bus, access)
    local region = self.shape.regions[access.region].about
    if not ok and region.unknown ~= "error" then
      return ("access %d, a %s, raises: %s"):format(number, models.text(self.shape, access),
        tostring(why))
    end
  end
  return nil
end

-- The offsets of a region where no register is, up to some.
local function gaps(self, region)
  local list, faces = {}, self.shape.regions[region.name]
  if region.whole then return list end
  for offset = 0, math.min(region.size, 65536) - 1 do
    if not faces.read[offset] and not faces.write[offset] then list[#list + 1] = offset end
    if #list == 64 then break end
  end
  return list
end

local function unknown(self, region)
  local bus = bus_of(self)
  local model = models.new(self.shape, bus)
  for _, offset in ipairs(gaps(self, region)) do
    for _, value in ipairs { false, u64.exact(0xa5) } do
      local wrong = model:access { region = region.name, offset = offset, size = 1,
        value = value or nil }
      if wrong then return wrong end
    end
  end
  return nil
end

-- ---- Lines ----

local function line_follows(self, line)
  local bus = bus_of(self)
  local model, random = models.new(self.shape, bus), chance.new(9)
  local names = {}
  for _, text in pairs(line.rule) do
    if type(text) == "string" then
      local register = self.shape.by[text:match "^[^.]*"]
      if register then names[#names + 1] = register end
    end
  end
  for _ = 1, MANY do
    local register = names[random(#names) + 1]
    shapes.store(bus.device, register, 0, chance.value(random, register.width))
    local level = model:level(line.rule)
    if bus.device.lines[line.name] ~= level or bus.lines[line.name] ~= level then
      return ("line %s is %s, and should be %s: %s is %s"):format(line.name,
        level and "down" or "up", level and "up" or "down", register.name,
        u64.hex(shapes.stored(bus.device, register)[0]))
    end
  end
  return nil
end

-- ---- State ----

local function has_no_effect(self, what, fn)
  for seed = 1, SEEDS do
    local bus, beside = used(self, seed), used(self, seed)
    local edges = {}
    for _, line in ipairs(self.shape.layout.lines) do
      edges[line.name] = bus.device[line.name].edges
    end
    local before = bus.device:save()
    fn(bus.device)
    local wrong = compare(before, bus.device:save(), what)
    for name, count in pairs(edges) do
      if bus.device[name].edges ~= count then
        wrong = wrong or ("%s changes line %s"):format(what, name)
      end
    end
    wrong = wrong or answers_differ(self, beside, bus, seed + 10, "after " .. what)
    if wrong then return wrong end
  end
  return nil
end

local function save_load(self)
  for seed = 1, SEEDS do
    local bus, other = used(self, seed), bus_of(self)
    other.store:copy(bus.store)
    local saved = bus.device:save()
    local ok, why = other.device:load(saved)
    if not ok then return "what save gives cannot be loaded: " .. tostring(why) end
    local wrong = compare(saved, other.device:save(), "after save and load")
    if not wrong and #self.shape.layout.holds == 0 then
      wrong = answers_differ(self, bus, other, seed + 10, "after save and load")
    end
    if wrong then return wrong end
  end
  return nil
end

-- A state without what a reset leaves alone.
local function without_kept(self, saved)
  saved.buffers = nil
  for _, name in ipairs(self.shape.layout.keeps) do
    saved.state[name], saved.timers[name], saved.registers[name] = nil, nil, nil
  end
  return saved
end

local function resets(self)
  local keeps = #self.shape.layout.keeps > 0 or #self.shape.layout.buffers > 0
  for seed = 1, SEEDS do
    local bus, fresh = used(self, seed), bus_of(self)
    bus.device:reset()
    fresh.store:copy(bus.store)
    local wrong = compare(without_kept(self, fresh.device:save()),
      without_kept(self, bus.device:save()), "after a reset")
    if not wrong and not keeps then
      wrong = answers_differ(self, fresh, bus, seed + 10, "new, and after a reset")
    end
    if wrong then return wrong end
  end
  return nil
end

local function same_again(self)
  for seed = 1, SEEDS do
    local wrong = answers_differ(self, bus_of(self), bus_of(self), seed,
      "two devices, the same accesses")
    if wrong then return wrong end
  end
  return nil
end

-- ---- The list ----

--- Adds the tests of the device: add(name, function () -> what is wrong, or nil).
function M.device(self, add)
  local layout = self.shape.layout
  local function test(name, fn, more)
    add(name, function() return fn(self, more) end)
  end
  for seed = 1, 3 do
    test(("answers random accesses as its table says (%d)"):format(seed), function()
      return against_model(self, seed)
    end)
  end
  test("raises nothing while time passes", time_passes)
  for _, region in ipairs(layout.regions) do
    if #gaps(self, region) > 0 then
      test(("region %s has offsets where no register is"):format(region.name), unknown, region)
    end
  end
  for _, line in ipairs(layout.lines) do
    if line.rule then test(("line %s follows its rule"):format(line.name), line_follows, line) end
  end
  test("answers the same accesses the same in every instance", same_again)
  test("is after a reset as it was at first", resets)
  test("goes on after save and load as before", save_load)
  test("is not changed by a dump", function()
    return has_no_effect(self, "a dump", function(dev)
      dev:dump()
      tostring(dev)
    end)
  end)
  test("is not changed by being saved", function()
    return has_no_effect(self, "being saved", function(dev) dev:save() end)
  end)
end

return M
