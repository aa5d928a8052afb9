-- SPDX-License-Identifier: MIT
-- What an ATA drive says of itself: the 256 words of IDENTIFY DEVICE and of IDENTIFY PACKET DEVICE
-- (T13/1410D, ATA/ATAPI-6), its geometry, and the modes of its transfers.

local word = require "lunavisor.device.word"

local M = {}

local MOST = 16 -- sectors of a block of READ MULTIPLE and WRITE MULTIPLE

M.MOST = MOST

--- Cylinders, heads and sectors a track of so many sectors ("Sector addressing").
function M.geometry(sectors)
  local heads, track = 16, 63
  return { cylinders = math.min(16383, math.max(1, math.floor(sectors / (heads * track)))),
    heads = heads, track = track }
end

-- Text in words, whose first character is the high byte, with blanks behind it.
local function put_text(words, first, last, text)
  text = text .. (" "):rep(2 * (last - first + 1) - #text)
  for i = first, last do
    local high, low = text:byte(2 * (i - first) + 1, 2 * (i - first) + 2)
    words[i] = high * 256 + low
  end
end

local function put_number(words, first, count, value)
  for i = 0, count - 1 do words[first + i] = math.floor(value / 65536 ^ i) % 65536 end
end

-- Words 80 to 87: ATA/ATAPI-1 to 6; 48 bits, FLUSH CACHE and its EXT, NOP.
local FEATURES = { [80] = 0x007e, [82] = 0x4000, [83] = 0x7400, [84] = 0x4000, [85] = 0x4000,
  [86] = 0x3400, [87] = 0x4000 }

-- The words of modes for a bus master: multiword DMA 0 to 2, Ultra DMA 0 to 5, and which is on.
local function put_modes(words, mode)
  local kind, number = math.floor(mode / 8), mode % 8
  words[49] = words[49] + 0x0100
  words[53] = words[53] + 4
  words[63] = 0x0007 + (kind == 4 and 2 ^ (8 + number) or 0)
  words[65], words[66] = 120, 120
  words[88] = 0x003f + (kind == 8 and 2 ^ (8 + number) or 0)
end

--- Whether SET FEATURES can turn on a mode, by the value of its Sector Count.
function M.has_mode(mode, dma)
  return mode <= 0x0c or dma and (mode >= 0x20 and mode <= 0x22 or mode >= 0x40 and mode <= 0x45)
end

local function bytes_of(words)
  local bytes = {}
  for i = 0, 255 do
    local value = words[i] or 0
    bytes[i + 1] = string.char(value % 256, word.bits(value, 8, 8))
  end
  return table.concat(bytes)
end

-- What both kinds of drives say.
local function common(drive, set, dma)
  local words = { [49] = 0x0a00, [53] = 0x0002, [64] = 0x0003, [67] = 120, [68] = 120 }
  put_text(words, 10, 19, drive.serial)
  put_text(words, 23, 26, "1.0")
  put_text(words, 27, 46, drive.model)
  words[93] = 0x4000 + (drive.number == 0 and 0x0b or 0x0300)
  if dma then put_modes(words, set.mode) end
  return words
end

--- The 512 bytes of a drive { disk =, serial =, model =, number =, native = its geometry } that has
--- been set to { multiple =, geometry = false or another, mode = }; dma: there is a bus master.
function M.answer(drive, set, dma)
  local words = common(drive, set, dma)
  local native, current, sectors = drive.native, set.geometry or drive.native, drive.disk.sectors
  words[0] = 0x0040
  words[1], words[3], words[6] = native.cylinders, native.heads, native.track
  words[47], words[50], words[51] = 0x8000 + MOST, 0x4000, 0x0200
  words[53] = words[53] + 1
  words[54], words[55], words[56] = current.cylinders, current.heads, current.track
  put_number(words, 57, 2, current.cylinders * current.heads * current.track)
  words[59] = set.multiple > 0 and 0x0100 + set.multiple or 0
  put_number(words, 60, 2, math.min(sectors, 2 ^ 28 - 1))
  for i, value in pairs(FEATURES) do words[i] = value end
  put_number(words, 100, 4, sectors)
  return bytes_of(words)
end

--- The same of IDENTIFY PACKET DEVICE: a CD drive with packets of 12 bytes, which asks for them
--- within 50 microseconds and without an interrupt.
function M.packet_answer(drive, set, dma)
  local words = common(drive, set, dma)
  words[0] = 0x85c0
  words[80], words[82], words[83] = 0x007e, 0x4210, 0x4000
  words[84], words[85], words[86], words[87] = 0x4000, 0x4210, 0, 0x4000
  return bytes_of(words)
end

return M
