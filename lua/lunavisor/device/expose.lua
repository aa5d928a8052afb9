-- SPDX-License-Identifier: MIT
-- What of a device's region is memory for now: the guest gets at a buffer there without an exit.
-- The rest of the region, and what the rights do not allow, goes to its functions as ever.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local instances = require "lunavisor.device.instance"

local M = {}

local known = { buffer = true, offset = true, at = true, size = true, rights = true }

-- ---- Places: where a region is ----

-- The region's functions answer where the memory cannot be mapped: slower, and the same.
local function try(d, what, space, ...)
  local ok, given, message = pcall(space[what], space, ...)
  if ok and given then return true end
  d:log(("expose: %s"):format(tostring(ok and message or given)))
  return false
end

-- While the device is recorded, what the guest writes is to come to it: its functions do the same.
local function rights_of(d, piece)
  return rawget(d, "stored") and piece.rights:gsub("w", "-") or piece.rights
end

local function apply(d, place, piece)
  local mapped = place.mapped
  if mapped then try(d, "unmap", place.space, place.gpa + mapped.at, mapped.size) end
  place.mapped = piece and try(d, "map", place.space, piece.buffer, place.gpa + piece.at,
    { offset = piece.offset, size = piece.size, rights = rights_of(d, piece) }) and piece or false
end

--- Brings what is mapped up to date, as the device is recorded from now on, or no longer.
function M.settle(d)
  for _, region in pairs(d.regions) do
    for _, place in ipairs(region.places) do
      if place.mapped then apply(d, place, place.mapped) end
    end
  end
end

--- The region (of dev.regions) is at this gpa of a space from now on.
function M.enter(region, space, gpa)
  local place = { space = space, gpa = gpa, mapped = false }
  region.places[#region.places + 1] = place
  apply(region.owner, place, region.exposed)
end

--- It is there no more.
function M.leave(region, space, gpa)
  for i, place in ipairs(region.places) do
    if place.space == space and place.gpa == gpa then
      apply(region.owner, place, false)
      table.remove(region.places, i)
      return
    end
  end
end

-- ---- dev:expose ----

local function piece_of(region, given)
  check.options("dev:expose", given, known, 2)
  if class.of(given.buffer) ~= "buffer" then
    error(("dev:expose: buffer: a buffer expected, got %s"):format(class.describe(given.buffer)),
      3)
  end
  local at = check.whole("dev:expose: at", given.at or 0, 0, region.size, 2)
  local offset = check.whole("dev:expose: offset", given.offset or 0, 0, given.buffer.size, 2)
  local rest = math.min(region.size - at, given.buffer.size - offset)
  local size = given.size and check.size("dev:expose: size", given.size, 2) or rest
  if size > rest then
    error(("dev:expose: 0x%x bytes at offset 0x%x of region %s, which has 0x%x, from offset 0x%x "
      .. "of a buffer that has 0x%x"):format(size, at, region.name, region.size, offset,
      given.buffer.size), 3)
  end
  if given.rights ~= nil then check.rights("dev:expose: rights", given.rights, 2) end
  return { buffer = given.buffer, at = at, offset = offset, size = size,
    rights = given.rights or "rwx" }
end

local function same(one, other)
  if not one or not other then return one == other end
  for key in pairs(known) do
    if one[key] ~= other[key] then return false end
  end
  return true
end

--- Lets the guest get at memory where a region is attached as MMIO, in place of all that was
--- exposed there: { buffer =, offset = into it, at = into the region, size = bytes (the three whole
--- pages), rights = "rwx" where nil }; nothing where nil or false. What cannot be mapped is said in
--- the log.
function instances.methods.expose(d, name, piece)
  local region = rawget(d.regions, name)
  if not region then
    error(("dev:expose: %s has no region %s%s"):format(d.name, tostring(name),
      class.hint(name, d.regions)), 2)
  end
  piece = piece and piece_of(region, piece) or false
  if same(region.exposed, piece) then return end
  region.exposed = piece
  for _, place in ipairs(region.places) do apply(d, place, piece) end
end

return M
