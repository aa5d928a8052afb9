-- SPDX-License-Identifier: MIT
-- The four planes of a VGA as the processor reads and writes them through the window at 0xa0000, by
-- IBM's PS/2 Hardware Interface Technical Reference, "Video Subsystem". Planes 0 and 1 lie byte by
-- byte beside each other, 2 and 3 behind them: so text is in the buffer as the processor sees it.

local word = require "lunavisor.device.word"

local M = {}

local bits, band, bor, bxor, floor = word.bits, word.band, word.bor, word.bxor, math.floor

M.PLANE = 0x10000 -- bytes of a plane

-- Where byte `at` of a plane is in the buffer.
local function place(plane, at) return (plane >= 2 and 0x20000 or 0) + 2 * at + plane % 2 end

M.place = place

-- The window's part that is there, by the memory map of the graphics controller (index 6).
local MAPS = { [0] = { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } }

local function map_of(d) return MAPS[bits(d.GRAPHICS[6], 2, 2)] end

-- Which planes an address is for, and where in them: "Memory Mode Register", odd/even.
local function locate(d, at)
  if bits(d.SEQUENCER[4], 2) == 0 then return floor(at / 2) % M.PLANE, at % 2 end
  return at % M.PLANE, nil
end

local function chained(d) return bits(d.SEQUENCER[4], 3) == 1 end

-- ---- Reads ----

-- "Color Compare": bit by bit, whether the latches have the colour in the planes that count.
local function compare(d)
  local result = 255
  for plane = 0, 3 do
    if bits(d.GRAPHICS[7], plane) == 1 then
      local wanted = bits(d.GRAPHICS[2], plane) == 1 and 0 or 255
      result = band(result, bxor(d.latches[plane + 1], wanted))
    end
  end
  return result
end

local function read_planes(d, at)
  local from, odd = locate(d, at)
  for plane = 0, 3 do d.latches[plane + 1] = d.planes:u8(place(plane, from)) end
  if bits(d.GRAPHICS[5], 3) == 1 then return compare(d) end
  local plane = bits(d.GRAPHICS[4], 0, 2)
  if odd then plane = plane - plane % 2 + odd end
  return d.latches[plane + 1]
end

-- ---- Writes ----

local OPERATIONS = { [0] = function(value) return value end, band, bor, bxor }

local function rotate(value, count)
  return floor((floor(value / 2 ^ count) + value * 2 ^ (8 - count)) % 256)
end

-- The byte that a plane gets before the bit mask, by write mode ("Graphics Mode Register"), and the
-- mask.
local function mixed(d, plane, value)
  local g = d.GRAPHICS
  local mode, latch, mask = bits(g[5], 0, 2), d.latches[plane + 1], g[8]
  if mode == 1 then return latch, 255 end
  local set = bits(g[0], plane) == 1 and 255 or 0
  if mode == 2 then
    value = bits(value, plane) == 1 and 255 or 0
  else
    value = rotate(value, bits(g[3], 0, 3))
    if mode == 3 then value, mask = set, band(mask, value) end
    if mode == 0 and bits(g[1], plane) == 1 then value = set end
  end
  return OPERATIONS[bits(g[3], 3, 2)](value, latch), mask
end

local function write_planes(d, at, value)
  local to, odd = locate(d, at)
  local enabled = d.SEQUENCER[2]
  for plane = 0, 3 do
    if bits(enabled, plane) == 1 and (not odd or plane % 2 == odd) then
      local byte, mask = mixed(d, plane, value)
      byte = bor(band(byte, mask), band(d.latches[plane + 1], 255 - mask))
      d.planes:u8(place(plane, to), byte)
    end
  end
end

-- ---- The window ----

--- Whether a VBE mode is on, whose memory is linear.
function M.is_linear(d) return d.VBE[4] % 2 == 1 and d.VBE[3] >= 8 end

-- Where an offset in the window is: in the planes' address space, or in the linear memory.
local function within(d, offset)
  if M.is_linear(d) then
    return nil, offset < 0x10000 and d.VBE[5] * 0x10000 + offset or nil
  end
  local map = map_of(d)
  local at = offset - map[1]
  if at < 0 or at >= map[2] then return nil, nil end
  if chained(d) then return nil, at end
  return at, nil
end

--- A byte of the window.
function M.read(d, offset)
  local at, linear = within(d, offset)
  if at then return read_planes(d, at) end
  return linear and linear < d.linear.size and d.linear:u8(linear) or 255
end

function M.write(d, offset, value)
  local at, linear = within(d, offset)
  if at then return write_planes(d, at, value) end
  if linear and linear < d.linear.size then d.linear:u8(linear, value) end
end

-- Text, as every program has it: no function of the graphics controller but odd and even.
local function is_text(d)
  local g = d.GRAPHICS
  return bits(d.SEQUENCER[4], 2) == 0 and d.SEQUENCER[2] % 16 == 3 and bits(g[5], 0, 4) == 0
    and g[3] % 32 == 0 and g[1] % 4 == 0 and g[8] == 255 and g[4] % 4 == 0
end

--- What of the window can be memory now: for dev:expose; false where nothing can.
function M.exposed(d)
  if M.is_linear(d) then
    local from = d.VBE[5] * 0x10000
    return from < d.linear.size and { buffer = d.linear, offset = from, at = 0, size = 0x10000 }
  end
  local map = map_of(d)
  if chained(d) then
    return { buffer = d.linear, offset = 0, at = map[1], size = map[2] }
  end
  return is_text(d) and map[2] == 0x8000
    and { buffer = d.planes, offset = 0, at = map[1], size = map[2] }
end

return M
