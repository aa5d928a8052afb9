-- SPDX-License-Identifier: MIT
-- Pictures as PNG (RFC 2083), their bytes stored as they are (RFC 1951, 3.2.4), for which no
-- library is needed.

local word = require "lunavisor.device.word"

local bxor, floor, char = word.bxor, math.floor, string.char

local M = {}

local table_of -- of CRC-32, RFC 2083, 15

local function make_table()
  local made = {}
  for n = 0, 255 do
    local c = n
    for _ = 1, 8 do c = c % 2 == 1 and bxor(0xedb88320, floor(c / 2)) or floor(c / 2) end
    made[n] = c
  end
  return made
end

local function crc(text)
  local c = 0xffffffff
  table_of = table_of or make_table()
  for at = 1, #text, 4096 do
    for _, byte in ipairs { text:byte(at, math.min(at + 4095, #text)) } do
      c = bxor(table_of[bxor(c % 256, byte)], floor(c / 256))
    end
  end
  return bxor(c, 0xffffffff)
end

local function adler(text)
  local a, b = 1, 0
  for at = 1, #text, 4096 do
    for _, byte in ipairs { text:byte(at, math.min(at + 4095, #text)) } do
      a = a + byte
      b = b + a
    end
    a, b = a % 65521, b % 65521
  end
  return b * 65536 + a
end

local function big(value)
  return char(floor(value / 2 ^ 24) % 256, floor(value / 65536) % 256, floor(value / 256) % 256,
    value % 256)
end

local function chunk(kind, data)
  return big(#data) .. kind .. data .. big(crc(kind .. data))
end

-- RFC 1950 around blocks of up to 65535 bytes.
local function stored(text)
  local parts = { "\x78\x01" }
  for at = 1, math.max(1, #text), 65535 do
    local piece = text:sub(at, at + 65534)
    local size = #piece
    parts[#parts + 1] = char(at + 65535 > #text and 1 or 0, size % 256, floor(size / 256),
      255 - size % 256, 255 - floor(size / 256)) .. piece
  end
  return table.concat(parts) .. big(adler(text))
end

--- A picture of `rows`, strings of a byte a pixel: numbers, from 0, of `colours`, a list of strings
--- of three bytes, red, green and blue. Where colours is nil, pixels are such three bytes.
function M.encode(width, rows, colours)
  return "\137PNG\r\n\26\n"
    .. chunk("IHDR", big(width) .. big(#rows) .. char(8, colours and 3 or 2, 0, 0, 0))
    .. (colours and chunk("PLTE", table.concat(colours)) or "")
    .. chunk("IDAT", stored("\0" .. table.concat(rows, "\0"))) .. chunk("IEND", "")
end

return M
