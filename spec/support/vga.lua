-- SPDX-License-Identifier: MIT
-- What the specs of the VGA share: a VGA's ports and memory as a guest has them, and its pictures.

local assert = require "luassert"
local helper = require "spec.support.helper"

local M = { SEQ = 0x3c4, GC = 0x3ce, CRTC = 0x3d4 }

-- A picture of a VGA: width, height, how a pixel (from 0) looks: "rrggbb".
local function picture(dev)
  local path = helper.file ""
  assert(dev:screenshot(path))
  local file = assert(io.open(path, "rb"))
  local data = file:read "*a"
  file:close()
  assert.equal("\137PNG\r\n\26\n", data:sub(1, 8))
  local function number(at)
    local a, b, c, d = data:byte(at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
  end
  local chunks, at = {}, 9
  while at <= #data do
    local size = number(at)
    chunks[data:sub(at + 4, at + 7)] = data:sub(at + 8, at + 7 + size)
    at = at + 12 + size
  end
  assert.equal("IEND\174B\96\130", data:sub(-8)) -- with the CRC that RFC 2083 is known for
  local pixels, stored = {}, chunks.IDAT:sub(3, -5)
  at = 1
  local last
  repeat
    local final, low, high, other, more = stored:byte(at, at + 4)
    local size = low + 256 * high
    assert.equal(65535 - size, other + 256 * more)
    pixels[#pixels + 1] = stored:sub(at + 5, at + 4 + size)
    at, last = at + 5 + size, final
  until last == 1
  pixels = table.concat(pixels)
  local wide = chunks.IHDR:byte(10) == 2 and 3 or 1
  data = chunks.IHDR
  local width, height = number(1), number(5)
  assert.equal((width * wide + 1) * height, #pixels)
  return width, height, function(x, y)
    local from = (width * wide + 1) * y + 1 + wide * x + 1
    local rgb = pixels:sub(from, from + wide - 1)
    if wide == 1 then rgb = chunks.PLTE:sub(3 * rgb:byte() + 1, 3 * rgb:byte() + 3) end
    return (rgb:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
  end
end


--- Functions out(port, value, size), inp(port), set(port, index, value), rd(port, index), poke(at,
--- value, size) and peek(at, size) of the window, vbe(index, value), and picture(), of the VGA that
--- get() gives.
function M.access(get)
  local made = {}
  function made.out(port, value, size)
    get().regions.io.write(nil, port - 0x3c0, size or 1, value)
  end
  function made.inp(port) return get().regions.io.read(nil, port - 0x3c0, 1) end
  function made.set(port, index, value) made.out(port, index + 256 * value, 2) end
  function made.rd(port, index)
    made.out(port, index)
    return made.inp(port + 1)
  end
  function made.poke(at, value, size) get().regions.window.write(nil, at, size or 1, value) end
  function made.peek(at, size) return get().regions.window.read(nil, at, size or 1) end
  function made.vbe(index, value)
    local region = get().regions.vbe
    region.write(nil, 0, 2, index)
    if value == nil then return region.read(nil, 1, 2) end
    region.write(nil, 1, 2, value)
  end
  --- The planes one by one, as for pictures of 16 colours.
  function made.planar()
    made.set(M.SEQ, 4, 6)
    made.set(M.SEQ, 2, 15)
    made.set(M.GC, 6, 5)
    made.set(M.GC, 5, 0)
  end
  function made.picture() return picture(get()) end
  return made
end

return M
