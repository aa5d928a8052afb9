-- SPDX-License-Identifier: MIT
-- Random accesses that are the same in every run and on both engines.

local bits = require "lunavisor.device.bits"
local u64 = require "lunavisor.text.u64"

local M = {}

--- A function random(n) -> 0 to n - 1, the same for the same seed.
function M.new(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 16807 % 2147483647
    return math.floor(state / 2147483647 * n)
  end
end

local sizes = { 1, 2, 4, 8 }

--- A value of so many bytes: often none, all or one of its bits, as registers look at those.
function M.value(random, size)
  local kind = random(6)
  local all = bits.all(size)
  if kind == 0 then return bits.zero end
  if kind == 1 then return all end
  if kind == 2 then return u64.lshift(1, random(8 * size)) end
  local value = u64(random(2 ^ 31) * 2 + random(2), random(2 ^ 31) * 2 + random(2))
  return u64.band(value, all)
end

--- An access to a device of the shape: mostly to whole registers, else anywhere in a region.
function M.access(random, shape)
  local registers, regions = shape.mapped, shape.layout.regions
  local access
  if #registers > 0 and random(10) < 7 then
    local register = registers[random(#registers) + 1]
    access = { region = register.region, size = register.width,
      offset = register.at + random(register.count or 1) * (register.stride or 0) }
  else
    local region = regions[random(#regions) + 1]
    local size = sizes[random(4) + 1]
    while size > region.size do size = size / 2 end
    access = { region = region.name, size = math.floor(size),
      offset = random(region.size - size + 1) }
  end
  if random(2) == 1 then access.value = M.value(random, access.size) end
  return access
end

return M
