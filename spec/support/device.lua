-- SPDX-License-Identifier: MIT
-- What specs of shipped devices share: random accesses, after which a device can be dumped, saved
-- and loaded, and never has raised.

local busted = require "busted"
local assert = require "luassert"
local u64 = require "lunavisor.text.u64"

local M = {}

-- The same numbers in every run, on both engines (Park and Miller).
local function numbers(seed)
  return function(limit)
    seed = seed * 16807 % 2147483647
    return seed % limit
  end
end

local sizes = { 1, 2, 4, 8 }

local function access(dev, region, next)
  local size = sizes[next(4) + 1]
  local offset = next(math.max(1, math.min(region.size, 0x1000) - size + 1))
  if next(2) == 0 then
    region.read(dev, offset, size)
  else
    local value = next(2) == 0 and next(256) or next(2 ^ 31) % 2 ^ (8 * math.min(size, 4))
    region.write(dev, offset, size, size == 8 and u64(value) or value)
  end
end

--- Tests that a device answers whatever a guest does; make(log) makes one. more(dev, next), if not
--- nil, is called now and then: what comes from the host's side.
function M.describe(name, make, more)
  busted.describe(name .. " under random accesses", function()
    busted.it("neither raises nor hangs, and dumps, saves and loads", function()
      for seed = 1, 5 do
        local dev, next = make(false), numbers(seed)
        local regions = {}
        for _, region in pairs(dev.regions) do regions[#regions + 1] = region end
        table.sort(regions, function(a, b) return a.name < b.name end)
        for i = 1, 400 do
          access(dev, regions[next(#regions) + 1], next)
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
