-- SPDX-License-Identifier: MIT
-- What a VGA shows: text as strings, and any mode as a picture. CGA's modes are shown as planes of
-- 16 colours; what blinks, as while it is there.

local font = require "lunavisor.device.models.font"
local memory = require "lunavisor.device.models.vga_memory"
local png = require "lunavisor.device.models.png"
local word = require "lunavisor.device.word"

local bits, floor, char = word.bits, math.floor, string.char

local M = {}

--- Bytes of a pixel of so many bits.
function M.bytes(depth) return floor((depth + 7) / 8) end

-- ---- Where and how much ----

local function is_text(d) return d.GRAPHICS[6] % 2 == 0 and not memory.is_linear(d) end

-- Columns (of 8 pixels), scan lines, scan lines of a row, the first address, and from row to row:
-- "CRT Controller Registers".
local function geometry(d)
  local c = d.CRTC
  local lines = c[0x12] + bits(c[7], 1) * 256 + bits(c[7], 6) * 512 + 1
  local doubled = bits(c[9], 7) == 1 and 2 or 1
  return { columns = c[1] + 1, lines = floor(lines / doubled), height = c[9] % 32 + 1,
    start = c[0x0c] * 256 + c[0x0d], step = c[0x13] * 2 }
end

-- Characters and attributes of a row, which planes 0 and 1 have.
local function cells(d, g, row)
  return (memory.read_all(d, g.start + row * g.step, g.columns):gsub("(..)..", "%1"))
end

-- ---- Text ----

function M.text(d)
  local rows, g = {}, geometry(d)
  if not is_text(d) then return rows end
  memory.flush(d)
  for row = 0, floor(g.lines / g.height) - 1 do
    local text = cells(d, g, row):gsub("(.).", "%1"):gsub("[%z\1-\31]", " ")
    rows[row + 1] = text:gsub(" +$", "")
  end
  return rows
end

function M.cursor(d)
  local c, g = d.CRTC, geometry(d)
  local at = (c[0x0e] * 256 + c[0x0f] - g.start) % memory.PLANE
  local row = floor(at / math.max(1, g.step))
  if not is_text(d) or bits(c[0x0a], 5) == 1 or at % g.step >= g.columns
    or row >= floor(g.lines / g.height) then
    return nil
  end
  return floor(at % g.step), row
end

-- ---- Colours ----

local function colour(d, index)
  local eight = bits(d.VBE[4], 5) == 1
  local rgb = {}
  for i = 1, 3 do
    local part = d.palette[3 * index + i]
    rgb[i] = eight and part or part * 4 + floor(part / 16)
  end
  return char(rgb[1], rgb[2], rgb[3])
end

-- The colours of 0 to 15 by the attribute controller, or all of the DAC.
local function colours_of(d, count)
  local list, a = {}, d.ATTRIBUTES
  for i = 0, count - 1 do
    local index = i
    if count == 16 then
      local own, high = a[i], a[20]
      index = bits(a[16], 7) == 1 and own % 16 + high % 16 * 16
        or own + bits(high, 2, 2) * 64
    end
    list[i + 1] = colour(d, word.band(index, d.PEL_MASK))
  end
  return list
end

-- ---- Text as a picture ----

-- Where the two fonts are in plane 2: "Character Map Select Register".
local function fonts(d)
  local s = d.SEQUENCER[3]
  local function address(low, high) return (bits(low, 0, 2) * 2 + high) * 0x2000 end
  return address(bits(s, 2, 2), bits(s, 5)), address(bits(s, 0, 2), bits(s, 4))
end

-- The bytes of a font's characters: a function(character, line). Where the guest has loaded none,
-- it is our own.
local function font_at(d, base, height)
  local data = memory.read_all(d, base, 0x2000):gsub("..(.).", "%1")
  if data == ("\0"):rep(#data) then
    return function(character, line) return font.byte(character, line, height) end
  end
  return function(character, line) return data:byte(character * 32 + line + 1) end
end

-- Eight pixels, or nine: the ninth is blank but in characters for lines.
local function pixels(byte, wide, lined, fore, back)
  local list = {}
  for bit = 7, 0, -1 do list[#list + 1] = bits(byte, bit) == 1 and fore or back end
  if wide then list[9] = lined and list[8] or back end
  return char((rawget(table, "unpack") or unpack)(list))
end

-- A function(byte, attribute, lined) that gives pixels as a string, each made once.
local function painter(d, wide)
  local made, blinks = {}, bits(d.ATTRIBUTES[16], 3) == 1
  return function(byte, attribute, lined)
    local key = (attribute * 256 + byte) * 2 + (lined and 1 or 0)
    local text = made[key]
    if not text then
      text = pixels(byte, wide, lined, attribute % 16, bits(attribute, 4, blinks and 3 or 4))
      made[key] = text
    end
    return text
  end
end

local function text_picture(d)
  local g, rows = geometry(d), {}
  local wide = bits(d.SEQUENCER[1], 0) == 0
  local paint = painter(d, wide)
  local lines = bits(d.ATTRIBUTES[16], 2) == 1
  local a, b = fonts(d)
  local first, second = font_at(d, a, g.height), font_at(d, b, g.height)
  local column, cursor = M.cursor(d)
  for row = 0, floor(g.lines / g.height) - 1 do
    local data = cells(d, g, row)
    for line = 0, g.height - 1 do
      local parts = {}
      for i = 0, g.columns - 1 do
        local character, attribute = data:byte(2 * i + 1, 2 * i + 2)
        local byte = (bits(attribute, 3) == 1 and first or second)(character, line)
        if row == cursor and i == column and line >= d.CRTC[10] % 32
          and line <= d.CRTC[11] % 32 then
          byte = 255
        end
        parts[i + 1] = paint(byte, attribute, lines and character >= 0xc0 and character <= 0xdf)
      end
      rows[#rows + 1] = table.concat(parts)
    end
  end
  return g.columns * (wide and 9 or 8), rows, colours_of(d, 16)
end

-- ---- Graphics ----

local function planar_row(data)
  local parts = {}
  for i = 1, #data, 4 do
    local p0, p1, p2, p3 = data:byte(i, i + 3)
    for bit = 7, 0, -1 do
      parts[#parts + 1] = char(bits(p0, bit) + 2 * bits(p1, bit) + 4 * bits(p2, bit)
        + 8 * bits(p3, bit))
    end
  end
  return table.concat(parts)
end

-- A byte of each plane is four pixels of 256 colours one after the other, or eight of 16.
local function graphics_picture(d)
  local g, rows = geometry(d), {}
  local many = bits(d.GRAPHICS[5], 6) == 1
  for row = 0, floor(g.lines / g.height) - 1 do
    local data = memory.read_all(d, g.start + row * g.step, g.columns)
    rows[row + 1] = many and data or planar_row(data)
  end
  return (many and 4 or 8) * g.columns, rows, colours_of(d, many and 256 or 16)
end

-- ---- VBE ----

-- Pixels of two bytes as three, each pair looked up once.
local function widened(green)
  local red = green == 6 and 11 or 10
  return setmetatable({}, { __index = function(made, pixel)
    local low, high = pixel:byte(1, 2)
    local value = low + 256 * high
    local text = char(floor(bits(value, red, 5) * 255 / 31),
      floor(bits(value, 5, green) * 255 / (2 ^ green - 1)), floor(bits(value, 0, 5) * 255 / 31))
    made[pixel] = text
    return text
  end })
end

local function linear_picture(d)
  local v, rows = d.VBE, {}
  local width, height, depth = v[1], v[2], v[3]
  local size = M.bytes(depth)
  local wide = size == 2 and widened(depth == 16 and 6 or 5)
  for row = 0, height - 1 do
    local at = ((v[9] + row) * v[6] + v[8]) * size
    local data = at + width * size <= d.linear.size and d.linear:read(at, width * size)
      or ("\0"):rep(width * size)
    if size == 2 then data = data:gsub("..", wide) end
    if size == 3 then data = data:gsub("(.)(.)(.)", "%3%2%1") end
    if size == 4 then data = data:gsub("(.)(.)(.).", "%3%2%1") end
    rows[row + 1] = data
  end
  return width, rows, size == 1 and colours_of(d, 256) or nil
end

--- The screen as the bytes of a PNG file.
function M.png(d)
  memory.flush(d)
  local draw = memory.is_linear(d) and linear_picture or is_text(d) and text_picture
    or graphics_picture
  return png.encode(draw(d))
end

function M.screenshot(d, path)
  if type(path) ~= "string" then
    error(("vga:screenshot: the path of a file expected, got %s"):format(type(path)), 2)
  end
  local data = M.png(d)
  local file, message = io.open(path, "wb")
  if not file then return nil, "vga:screenshot: " .. message end
  local ok, problem = file:write(data)
  file:close()
  if not ok then return nil, "vga:screenshot: " .. problem end
  return true
end

return M
