-- SPDX-License-Identifier: MIT
-- How wide a picture is and how many colours it has: lunavisor's PNG, whose bytes are stored as
-- they are, or QEMU's PPM.

local M = {}

local function big(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

-- The bytes of blocks that are stored (RFC 1951, 3.2.4).
local function unstored(text)
  local parts, at = {}, 3
  repeat
    local last, low, high = text:byte(at, at + 2)
    local size = low + 256 * high
    parts[#parts + 1] = text:sub(at + 5, at + 4 + size)
    at = at + 5 + size
  until last == 1
  return table.concat(parts)
end

local function count(rows, step)
  local seen, found = {}, 0
  for _, row in ipairs(rows) do
    for at = 1, #row, step do
      local colour = row:sub(at, at + step - 1)
      if not seen[colour] then seen[colour], found = true, found + 1 end
    end
  end
  return found
end

--- { width =, colours = } of a PNG with a palette or of true colours; of nothing where it is none.
function M.of_png(text)
  if text:sub(2, 4) ~= "PNG" then return { width = 0, colours = 0 } end
  local width, step = big(text, 17), text:byte(26) == 3 and 1 or 3
  local at, data = 9, nil
  while not data do
    local size = big(text, at)
    if text:sub(at + 4, at + 7) == "IDAT" then data = unstored(text:sub(at + 8, at + 7 + size)) end
    at = at + 12 + size
  end
  local rows, line = {}, width * step + 1 -- a byte in front says how the row is filtered: not
  for first = 2, #data, line do rows[#rows + 1] = data:sub(first, first + line - 2) end
  return { width = width, colours = count(rows, step) }
end

--- The same of a PPM with three bytes a pixel.
function M.of_ppm(text)
  local head, width = text:match "^(P6%s+(%d+)%s+%d+%s+255%s)"
  if not head then return { width = 0, colours = 0 } end
  return { width = tonumber(width), colours = count({ text:sub(#head + 1) }, 3) }
end

--- Whether a picture is what a test wants: so wide, and so many colours or more.
function M.fits(found, width, colours)
  return (width == 0 or found.width == width) and found.colours >= colours
end

return M
