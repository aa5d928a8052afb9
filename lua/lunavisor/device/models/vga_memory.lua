-- SPDX-License-Identifier: MIT
-- The memory of a VGA and the window at 0xa0000 through which the processor sees it, by IBM's PS/2
-- Hardware Interface Technical Reference, "Video Subsystem". There is one memory, dev.linear: its
-- first 256 KiB are the four planes, the bytes of one address beside each other, so that a chained
-- address is where the byte is. Text, which is not, is in dev.shadow while the processor gets at it
-- directly.

local word = require "lunavisor.device.word"

local M = {}

local bits, band, bor, bxor, floor = word.bits, word.band, word.bor, word.bxor, math.floor

M.PLANE = 0x10000 -- bytes of a plane
local TEXT = 0x8000

-- By four bits, one for each plane: all bits of their bytes.
local FULL = {}
for planes = 0, 15 do
  FULL[planes] = 0
  for plane = 0, 3 do
    if bits(planes, plane) == 1 then FULL[planes] = floor(FULL[planes] + 255 * 256 ^ plane) end
  end
end
local EACH = 0x01010101

--- `count` bytes of all four planes from an address; it wraps.
function M.read_all(d, at, count)
  at = at % M.PLANE
  local first = math.min(count, M.PLANE - at)
  local data = d.linear:read(4 * at, 4 * first)
  return first < count and data .. d.linear:read(0, 4 * (count - first)) or data
end

--- Whether a VBE mode is on, whose memory is linear.
function M.is_linear(d) return d.VBE[4] % 2 == 1 and d.VBE[3] >= 8 end

-- The window's part that is there, by the memory map of the graphics controller (index 6).
local MAPS = { [0] = { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } }

local function map_of(d) return MAPS[bits(d.GRAPHICS[6], 2, 2)] end

local function chained(d) return bits(d.SEQUENCER[4], 3) == 1 end

-- ---- Text that the processor gets at directly ----

-- While the shadow is used, by device: what it and planes 0 and 1 had when they were last the same,
-- { text =, planes = }.
local known = setmetatable({}, { __mode = "k" })

local BLANK, ROW = ("\0"):rep(2 * TEXT), 128

local function planes_of(d) return d.linear:read(0, 2 * TEXT) end

local function text_of(planes)
  return planes == BLANK and BLANK:sub(1, TEXT) or (planes:gsub("(..)..", "%1"))
end

-- Calls put(at, cell) for the characters and attributes that differ from what they were.
local function each_change(now, before, put)
  for at = 1, TEXT, ROW do
    local row = now:sub(at, at + ROW - 1)
    if row ~= before:sub(at, at + ROW - 1) then
      for cell = at, at + ROW - 1, 2 do
        local character, attribute = now:byte(cell, cell + 1)
        local one, other = before:byte(cell, cell + 1)
        if character ~= one or attribute ~= other then
          put(cell - 1, character + 256 * attribute)
        end
      end
    end
  end
end

local function note(d)
  local planes = planes_of(d)
  known[d] = { text = text_of(planes), planes = planes }
end

--- Brings planes and shadow up to date with each other: the guest has written to its text, or into
--- the planes through the linear framebuffer, as has whoever writes to dev.linear. Where both were
--- written, text counts.
function M.flush(d)
  local before = known[d]
  if not before then return end
  local text, planes = d.shadow:read(0, TEXT), planes_of(d)
  if text == before.text and planes == before.planes then return end
  if planes ~= before.planes then
    each_change(text_of(planes), before.text, function(at, cell) d.shadow:u16(at, cell) end)
  end
  each_change(text, before.text, function(at, cell)
    d.shadow:u16(at, cell)
    d.linear:u16(2 * at, cell)
  end)
  note(d)
end

-- Text, as every program has it: no function of the graphics controller but odd and even.
local function is_text(d)
  local g = d.GRAPHICS
  return bits(d.SEQUENCER[4], 2, 2) == 0 and d.SEQUENCER[2] == 3 and bits(g[5], 0, 4) == 0
    and g[3] == 0 and g[1] % 4 == 0 and g[8] == 255 and g[4] < 2 and map_of(d)[2] == TEXT
    and not M.is_linear(d)
end

local function enter_text(d)
  if known[d] then return end
  note(d)
  d.shadow:write(0, known[d].text)
end

--- A state was loaded, whose planes have all.
function M.loaded(d) known[d] = nil end

-- ---- The linear framebuffer ----

--- What of it can be memory, for dev:expose: while there is a shadow, not the planes.
function M.frame(d)
  local at = known[d] and 4 * M.PLANE or 0
  return { buffer = d.linear, at = at, offset = at }
end

--- A byte of it.
function M.read_frame(d, at)
  if at >= d.linear.size then return 255 end
  M.flush(d)
  return d.linear:u8(at)
end

function M.write_frame(d, at, value)
  if at >= d.linear.size then return end
  M.flush(d)
  d.linear:u8(at, value)
  M.flush(d)
end

-- ---- Reads ----

-- Which planes an address is for as bits, where in them, and the lowest of those planes; by "Memory
-- Mode Register".
local function locate(d, at)
  if chained(d) then return 2 ^ (at % 4), floor(at / 4) % M.PLANE, at % 4 end
  if bits(d.SEQUENCER[4], 2) == 0 then
    return at % 2 == 0 and 5 or 10, floor(at / 2) % M.PLANE, bits(d.GRAPHICS[4], 1) * 2 + at % 2
  end
  return 15, at % M.PLANE, d.GRAPHICS[4] % 4
end

-- "Color Compare": bit by bit, whether the latches have the colour in the planes that count.
local function compare(d)
  local g = d.GRAPHICS
  local wrong = band(bxor(d.latch, FULL[g[2]]), FULL[g[7]])
  return 255 - bor(bor(bits(wrong, 0, 8), bits(wrong, 8, 8)),
    bor(bits(wrong, 16, 8), bits(wrong, 24, 8)))
end

local function read_planes(d, at)
  local _, from, plane = locate(d, at)
  d.latch = d.linear:u32(4 * from)
  if bits(d.GRAPHICS[5], 3) == 1 then return compare(d) end
  return bits(d.latch, 8 * plane, 8)
end

-- ---- Writes ----

local OPERATIONS = { [0] = function(value) return value end, band, bor, bxor }

local function rotate(value, count)
  return floor((floor(value / 2 ^ count) + value * 2 ^ (8 - count)) % 256)
end

-- One value in place of another's bits of a mask.
local function merge(value, other, mask)
  return bor(band(value, mask), band(other, 0xffffffff - mask))
end

-- What the planes get, by write mode ("Graphics Mode Register").
local function mixed(d, value)
  local g, latch = d.GRAPHICS, d.latch
  local mode, mask = bits(g[5], 0, 2), g[8]
  if mode == 1 then return latch end
  local all
  if mode == 2 then
    all = FULL[value % 16]
  else
    value = rotate(value, g[3] % 8)
    if mode == 3 then
      all, mask = FULL[g[0]], band(mask, value)
    else
      all = merge(FULL[g[0]], value * EACH, FULL[g[1]])
    end
  end
  return merge(OPERATIONS[bits(g[3], 3, 2)](all, latch), latch, mask * EACH)
end

local function write_planes(d, at, value)
  local planes, to = locate(d, at)
  local mask = FULL[band(planes, d.SEQUENCER[2])]
  d.linear:u32(4 * to, merge(mixed(d, value), d.linear:u32(4 * to), mask))
end

-- ---- The window ----

-- Where an offset in the window is: a buffer and a place in it, or an address for the planes.
local function within(d, offset)
  if M.is_linear(d) then
    local at = d.VBE[5] * 0x10000 + offset
    return offset < 0x10000 and at < d.linear.size and d.linear or nil, at
  end
  local map = map_of(d)
  local at = offset - map[1]
  if at < 0 or at >= map[2] then return nil end
  return known[d] and d.shadow or nil, at, not known[d]
end

--- A byte of the window.
function M.read(d, offset)
  local buffer, at, planes = within(d, offset)
  if planes then return read_planes(d, at) end
  return buffer and buffer:u8(at) or 255
end

function M.write(d, offset, value)
  local buffer, at, planes = within(d, offset)
  if planes then return write_planes(d, at, value) end
  if buffer then buffer:u8(at, value) end
end

-- Whether chained memory is as the processor writes it: no function of the graphics controller.
local function is_direct(d)
  local g = d.GRAPHICS
  return chained(d) and d.SEQUENCER[2] == 15 and bits(g[5], 0, 4) == 0 and g[3] == 0 and g[1] == 0
    and g[8] == 255
end

--- What of the window can be memory by the registers as they are now, for dev:expose; false where
--- nothing can.
function M.settle(d)
  if is_text(d) then
    enter_text(d)
    return { buffer = d.shadow, at = map_of(d)[1], size = TEXT }
  end
  M.flush(d)
  known[d] = nil
  if M.is_linear(d) then
    local from = d.VBE[5] * 0x10000
    return from < d.linear.size and { buffer = d.linear, offset = from, size = 0x10000 }
  end
  local map = map_of(d)
  return is_direct(d) and { buffer = d.linear, at = map[1], size = map[2] }
end

return M
