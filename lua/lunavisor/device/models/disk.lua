-- SPDX-License-Identifier: MIT
-- What is behind a drive: sectors in a file or in a buffer, and over them, in `over`, those that
-- were written and stay in this process.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local buffers = require "lunavisor.memory.buffer"

local M = {}

local known = { image = true, read_only = true, copy = true, size = true }

local function length_of(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local length = file:seek "end"
  file:close()
  return length
end

local function open_image(what, spec, level)
  local image = spec.image
  if class.of(image) == "buffer" then return image, image.size end
  if type(image) ~= "string" then
    error(("%s: image: the path of a file, or a buffer, expected, got %s"):format(what,
      class.describe(image)), level + 1)
  end
  local length, message = length_of(image)
  if not length then error(("%s: image: %s"):format(what, message), level + 1) end
  local buffer
  buffer, message = buffers.new { file = image, read_only = spec.read_only or nil,
    private = spec.copy or nil }
  if not buffer then error(("%s: image: %s"):format(what, message), level + 1) end
  return buffer, length
end

local Disk = {}
Disk.__index = Disk

--- A disk of `spec`: an image, which is the path of a file or a buffer, or { image =, read_only =
--- true where it cannot be written, copy = true where what is written stays in this process, size =
--- bytes of it, all where nil }. `sector`: bytes of one, 512 where nil. What is wrong raises at
--- `level`, with `what` in front.
function M.new(what, spec, level, sector)
  sector = sector or 512
  if type(spec) == "string" or class.of(spec) == "buffer" then spec = { image = spec } end
  check.options(what, spec, known, level)
  local buffer, length = open_image(what, spec, level + 1)
  if length < sector then
    error(("%s: image: %s has %d bytes, which is no sector of %d"):format(what,
      type(spec.image) == "string" and spec.image or class.describe(spec.image), length, sector),
      level + 1)
  end
  local size = spec.size and check.size(what .. ": size", spec.size, level) or length
  if size > length or size < sector then
    error(("%s: size: %d bytes, and the image has %d; from %d to all of it expected"):format(what,
      size, length, sector), level + 1)
  end
  return setmetatable({ buffer = buffer, sectors = math.floor(size / sector), sector = sector,
    read_only = spec.read_only or false, over = spec.copy and {} or nil }, Disk)
end

--- The bytes of `count` sectors from sector `first`; nil, message where the host cannot read them.
function Disk.read(self, first, count)
  local size, over = self.sector, self.over
  local data, message = self.buffer:read(first * size, count * size)
  if not data or not over or not next(over) then return data, message end
  local parts = {}
  for i = 0, count - 1 do
    parts[i + 1] = over[first + i] or data:sub(i * size + 1, (i + 1) * size)
  end
  return table.concat(parts)
end

--- Writes whole sectors; true, or nil and a message.
function Disk.write(self, first, data)
  local size, over = self.sector, self.over
  if over then
    for i = 0, #data / size - 1 do
      over[math.floor(first + i)] = data:sub(i * size + 1, (i + 1) * size)
    end
    return true
  end
  local ok, message = self.buffer:write(first * size, data)
  if ok == nil and message then return nil, message end
  return true
end

return M
