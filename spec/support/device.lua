-- SPDX-License-Identifier: MIT
-- What specs of shipped devices share: random accesses, after which a device can be dumped, saved
-- and loaded, and never has raised.

local busted = require "busted"
local assert = require "luassert"
local device = require "lunavisor.device"
local u64 = require "lunavisor.text.u64"

local M = {}

-- The same numbers in every run, on both engines (Park and Miller).
function M.numbers(seed)
  return function(limit)
    seed = seed * 16807 % 2147483647
    return seed % limit
  end
end

local sizes = { 1, 2, 4, 8 }

local places = setmetatable({}, { __mode = "k" })

-- Where the registers of a region are, a list of { offset, size }.
local function places_of(dev, region)
  local list = places[region]
  if list then return list end
  list = {}
  for _, register in ipairs(device.layout(dev).registers) do
    if register.at and dev.regions[register.region] == region then
      for i = 0, (register.count or 1) - 1 do
        list[#list + 1] = { register.at + i * (register.stride or 0), register.width }
      end
    end
  end
  places[region] = list
  return list
end

--- One access to a region, half of them to a register as it is; what was read, nil for a write.
function M.access(dev, region, next)
  local size = sizes[next(4) + 1]
  local offset = next(math.max(1, math.min(region.size, 0x1000) - size + 1))
  local list = places_of(dev, region)
  if #list > 0 and next(2) == 0 then
    local place = list[next(#list) + 1]
    offset, size = place[1], place[2]
  end
  if next(2) == 0 then
    return region.read(dev, offset, size)
  else
    local value = next(2) == 0 and next(256) or next(2 ^ 31) % 2 ^ (8 * math.min(size, 4))
    region.write(dev, offset, size, size == 8 and u64(value) or value)
  end
end

--- The regions of a device by name, in order.
function M.regions(dev)
  local regions = {}
  for _, region in pairs(dev.regions) do regions[#regions + 1] = region end
  table.sort(regions, function(a, b) return a.name < b.name end)
  return regions
end

--- Tests that a device answers whatever a guest does; make(log) makes one. more(dev, next), if not
--- nil, is called now and then: what comes from the host's side.
function M.describe(name, make, more)
  busted.describe(name .. " under random accesses", function()
    busted.it("neither raises nor hangs, and dumps, saves and loads", function()
      for seed = 1, 5 do
        local dev, next = make(false), M.numbers(seed)
        local regions = M.regions(dev)
        for i = 1, 400 do
          M.access(dev, regions[next(#regions) + 1], next)
          if i % 8 == 0 and more then more(dev, next) end
          if i % 16 == 0 then dev.clock:advance(next(1000) / 1e5) end
        end
        assert.is_string(tostring(dev))
        local saved = dev:save()
        local other = make(false)
        assert(other:load(saved))
        assert.same(saved.registers, other:save().registers)
      end
    end)
  end)
end

return M
