-- SPDX-License-Identifier: MIT
-- Registers with `block` functions, which take or give any number of bytes in one call: string I/O
-- that comes as a block, and accesses that are wider than the register.

local bits = require "lunavisor.device.bits"

local unpack = rawget(table, "unpack") or unpack
local char = string.char

local M = {}

--- The register that takes a wide access: the one there now, if it has the function; or nil.
function M.at(d, region, direction, offset, size)
  local faces = region.streams and region.streams[direction][offset]
  for i = 1, faces and #faces or 0 do
    local register = faces[i].register
    if (not register.when or register.when(d)) and size > register.width then return register end
  end
  return nil
end

-- Lines that are worked out follow.
local function settle(d)
  local update = rawget(d, "class").layout.update
  if update then update(d) end
end

local function take(d, register, count)
  local bytes = register.block.read(d, count)
  if type(bytes) ~= "string" or #bytes ~= count then
    error(("%s: block.read gave %s, and a string of %d bytes is expected"):format(register.name,
      type(bytes) == "string" and ("one of %d"):format(#bytes) or type(bytes), count), 0)
  end
  settle(d)
  return bytes
end

local function give(d, register, bytes)
  register.block.write(d, bytes)
  settle(d)
end

--- The value of a wide read.
function M.read(d, register, size)
  return bits.value({ take(d, register, size):byte(1, size) }, size)
end

local function text_of(value, size) return char(unpack(bits.bytes(value, size), 1, size)) end

--- A wide write.
function M.write(d, register, size, value)
  give(d, register, text_of(value, size))
end

-- The faces with a function for a direction, by offset; nil where there is none.
local function streams_of(region, direction)
  local by, found = {}, false
  for at, list in pairs(region[direction]) do
    for _, face in ipairs(list) do
      local block = face.register.block
      if block and block[direction] and face.at == at then
        by[at] = by[at] or {}
        table.insert(by[at], face)
        found = true
      end
    end
  end
  return by, found
end

-- The register for a block of elements of one size at an offset.
local function whole(d, region, direction, offset)
  return M.at(d, region, direction, offset, math.huge)
end

local function read_block(region)
  return function(d, offset, size, count)
    local register = whole(d, region, "read", offset)
    if register then return take(d, register, size * count) end
    local parts = {}
    for i = 1, count do parts[i] = text_of(region.read_access(d, offset, size), size) end
    return table.concat(parts)
  end
end

local function write_block(region)
  return function(d, offset, size, data)
    local register = whole(d, region, "write", offset)
    if register then return give(d, register, data) end
    for at = 1, #data, size do
      region.write_access(d, offset, size, bits.value({ data:byte(at, at + size - 1) }, size))
    end
  end
end

--- Gives a region read_block(d, offset, size, count) and write_block(d, offset, size, data), if a
--- register of it has block functions.
function M.region(region)
  local reads, reading = streams_of(region, "read")
  local writes, writing = streams_of(region, "write")
  if not reading and not writing then return end
  region.streams = { read = reads, write = writes }
  if reading then region.read_block = read_block(region) end
  if writing then region.write_block = write_block(region) end
end

return M
