-- SPDX-License-Identifier: MIT
-- What an ATA drive says of itself: the 256 words of IDENTIFY DEVICE (T13/1410D, ATA/ATAPI-6) and
-- its geometry.

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

--- The answer of a drive { disk =, serial =, model =, native, current = geometries, multiple = its
--- SET MULTIPLE MODE, 0 for none }, as 512 bytes.
function M.answer(drive)
  local words = {}
  for i = 0, 255 do words[i] = 0 end
  local native, current, sectors = drive.native, drive.current, drive.disk.sectors
  words[0] = 0x0040
  words[1], words[3], words[6] = native.cylinders, native.heads, native.track
  put_text(words, 10, 19, drive.serial)
  put_text(words, 23, 26, "1.0")
  put_text(words, 27, 46, drive.model)
  words[47], words[49], words[50] = 0x8000 + MOST, 0x0a00, 0x4000
  words[51], words[53] = 0x0200, 0x0003
  words[54], words[55], words[56] = current.cylinders, current.heads, current.track
  put_number(words, 57, 2, current.cylinders * current.heads * current.track)
  words[59] = drive.multiple > 0 and 0x0100 + drive.multiple or 0
  put_number(words, 60, 2, math.min(sectors, 2 ^ 28 - 1))
  words[64], words[67], words[68] = 0x0003, 120, 120
  for i, value in pairs(FEATURES) do words[i] = value end
  words[93] = 0x4000 + (drive.number == 0 and 0x0b or 0x0300)
  put_number(words, 100, 4, sectors)
  local bytes = {}
  for i = 0, 255 do bytes[i + 1] = string.char(words[i] % 256, word.bits(words[i], 8, 8)) end
  return table.concat(bytes)
end

return M
