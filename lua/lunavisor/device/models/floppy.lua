-- SPDX-License-Identifier: MIT
-- Floppy drives of PCs and the disks that they take. Which disk an image is its size says; one that
-- has another size, and no more than 1.44 MB, is the beginning of a disk of 1.44 MB.

local class = require "lunavisor.class"
local disk = require "lunavisor.device.models.disk"

local M = {}

local KIB, SECTOR = 1024, 512
local RATE_500, RATE_250, RATE_1000 = 0, 2, 3 -- as a PC's controller has them
local USUAL = 1440

-- Cylinders, sides and sectors of a track of the disks, by KiB.
local DISKS = {
  [160] = { cylinders = 40, heads = 1, track = 8 },
  [180] = { cylinders = 40, heads = 1, track = 9 },
  [320] = { cylinders = 40, heads = 2, track = 8 },
  [360] = { cylinders = 40, heads = 2, track = 9 },
  [640] = { cylinders = 80, heads = 2, track = 8 },
  [720] = { cylinders = 80, heads = 2, track = 9 },
  [1200] = { cylinders = 80, heads = 2, track = 15 },
  [USUAL] = { cylinders = 80, heads = 2, track = 18 },
  [1680] = { cylinders = 80, heads = 2, track = 21 },
  [2880] = { cylinders = 80, heads = 2, track = 36 },
}
local SIZES = "160, 180, 320, 360, 640, 720, 1200, 1440, 1680, 2880"

-- Drives, in the order in which one is chosen for a disk: how a PC's CMOS memory calls it, the last
-- cylinder to which its head goes, and the data rate of each disk that it takes. Those of 40
-- cylinders need two steps a cylinder in a drive of 1.2 MB, which is not modelled.
local DRIVES = {
  { name = "360K", type = 1, last = 41,
    rates = { [160] = RATE_250, [180] = RATE_250, [320] = RATE_250, [360] = RATE_250 } },
  { name = "1.2M", type = 2, last = 82, rates = { [1200] = RATE_500 } },
  { name = "1.44M", type = 4, last = 82,
    rates = { [640] = RATE_250, [720] = RATE_250, [1440] = RATE_500, [1680] = RATE_500 } },
  { name = "2.88M", type = 5, last = 82,
    rates = { [640] = RATE_250, [720] = RATE_250, [1440] = RATE_500, [2880] = RATE_1000 } },
  { name = "720K", type = 3, last = 82, rates = { [640] = RATE_250, [720] = RATE_250 } },
}
local NAMES = "360K, 720K, 1.2M, 1.44M, 2.88M"

--- Whether so many bytes are those of a disk.
function M.is_size(bytes) return DISKS[bytes / KIB] ~= nil end

local function drive_named(what, name, level)
  for _, kind in ipairs(DRIVES) do
    if kind.name == name then return kind end
  end
  error(("%s: drive: one of %s expected, got %s"):format(what, NAMES, tostring(name)), level + 1)
end

-- The KiB of the disk that an image of so many sectors is.
local function size_of(what, sectors, level)
  local size = sectors * SECTOR / KIB
  if DISKS[size] then return size end
  if size < USUAL then return USUAL end
  error(("%s: image: a disk of %s KiB, or less than %d, expected, got %g"):format(what, SIZES,
    USUAL, size), level + 1)
end

local Medium = {}
Medium.__index = Medium

--- The bytes of a sector by cylinder, side and number from 1; nil, message where the host cannot
--- read it. Zeros behind the end of an image.
function Medium.read(self, cylinder, side, sector)
  local at = self:at(cylinder, side, sector)
  if at >= self.disk.sectors then
    return self.disk.over and self.disk.over[at] or ("\0"):rep(SECTOR)
  end
  return self.disk:read(at, 1)
end

--- Writes a sector; nil, message where the host cannot, and behind the end of an image that does
--- not stay in this process.
function Medium.write(self, cylinder, side, sector, data)
  local at = self:at(cylinder, side, sector)
  if at >= self.disk.sectors and not self.disk.over then
    return nil, ("sector %d is behind the end of the image, which has %d"):format(at,
      self.disk.sectors)
  end
  return self.disk:write(at, data)
end

function Medium.at(self, cylinder, side, sector)
  return (cylinder * self.heads + side) * self.track + sector - 1
end

-- A disk for a drive: what disk.lua has of `spec`, where it is on the disk, and its data rate.
local function medium(what, kind, spec, level)
  local made = disk.new(what, spec, level + 1)
  local size = size_of(what, made.sectors, level + 1)
  if not kind then
    for _, one in ipairs(DRIVES) do
      if not kind and one.rates[size] then kind = one end
    end
  end
  if not kind.rates[size] then
    error(("%s: image: a drive of %s takes no disk of %d KiB"):format(what, kind.name, size),
      level + 1)
  end
  local shape = DISKS[size]
  return setmetatable({ disk = made, cylinders = shape.cylinders, heads = shape.heads,
    track = shape.track, rate = kind.rates[size] }, Medium), kind
end

-- The table that describes a disk, and the kind of drive where it names one.
local function described(what, spec, level)
  if type(spec) ~= "table" or class.of(spec) == "buffer" then return { image = spec } end
  local rest, kind = {}, nil
  for key, value in pairs(spec) do
    if key == "drive" then kind = drive_named(what, value, level + 1) else rest[key] = value end
  end
  return rest, kind
end

--- A drive: { name =, type =, last = cylinder, kind =, medium = nil where it is empty }. `spec` is
--- what disk.lua takes, in a table also drive = its name; image = false is an empty drive, of
--- 1.44 MB where no other is named. What is wrong raises at `level`, with `what` in front.
function M.drive(what, spec, level)
  local rest, kind = described(what, spec, level + 1)
  local made
  if rest.image == false then
    kind = kind or drive_named(what, "1.44M", level)
  else
    made, kind = medium(what, kind, rest, level + 1)
  end
  return { name = kind.name, type = kind.type, last = kind.last, kind = kind, medium = made }
end

--- Another disk for a drive; image = false: none.
function M.change(what, drive, spec, level)
  local rest = described(what, spec, level + 1)
  drive.medium = rest.image ~= false and medium(what, drive.kind, rest, level + 1) or nil
end

return M
