-- SPDX-License-Identifier: MIT
-- A result of a sweep as a picture (SVG): lines over a number, bars over names, a heat map over two
-- parameters. Light or dark as the reader's settings are. All have a title, and may have a note.

local escape = require("lunavisor.text.markup").escape
local scale = require "lunavisor.sweep.scale"

local M = {}

local unpack = table.unpack or unpack

local WIDTH, HEIGHT = 760, 460
local LEFT, RIGHT, TOP, BOTTOM = 84, 24, 64, 64 -- what is around the plot, in pixels
local CHARACTER = 7.2 -- the width of one, about
-- By day and by night.
local COLOURS = {
  { "#0b62c4", "#6cb2ff" }, { "#c2410c", "#ff9a62" }, { "#15803d", "#5fd08a" },
  { "#9333ea", "#c79bff" }, { "#a16207", "#e0b84c" }, { "#be185d", "#ff8ac0" },
  { "#0e7490", "#58cfe6" }, { "#57534e", "#b8b2ab" },
}

local DAY = ".paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e }\n"
  .. ".grid { stroke: #d8dee4 } .axis { stroke: #59636e } .hole { fill: none; stroke: #d8dee4 }\n"
local NIGHT = ".paper { fill: #14181d } .ink { fill: #e6edf3 } .soft { fill: #9aa5b1 }\n"
  .. ".grid { stroke: #2c343d } .axis { stroke: #9aa5b1 } .hole { stroke: #3a444f }\n"

local HEAD = [[
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d"
  font-family="system-ui, sans-serif" font-size="13" role="img">
<title>%s</title>
<style>
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
%s@media (prefers-color-scheme: dark) {
%s}
</style>
<rect class="paper" width="100%%" height="100%%"/>
<text class="ink" x="16" y="26" font-size="16" font-weight="600">%s</text>
]]

local function style(first, column, count)
  local parts = { first }
  for i = 1, count do
    parts[i + 1] = (".l%d { stroke: %s } .f%d { fill: %s }\n"):format(i, COLOURS[i][column], i,
      COLOURS[i][column])
  end
  return table.concat(parts)
end

-- Numbers in tenths: what printf makes of halves of them is not the same on both engines.
local function put(out, form, ...)
  local values = { ... }
  for i, value in ipairs(values) do
    if type(value) == "number" then values[i] = math.floor(value * 10 + 0.5) / 10 end
  end
  out[#out + 1] = form:format(unpack(values))
end

local function text(out, x, y, class, anchor, words, more)
  put(out, '<text class="%s" x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>', class, x, y, anchor,
    more or "", escape(words))
end

local function line(out, class, x1, y1, x2, y2)
  put(out, '<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', class, x1, y1, x2, y2)
end

local function begin(data, width, height, colours)
  local title = escape(data.title)
  local out = { (HEAD:format(width, height, width, height, title, style(DAY, 1, colours),
    style(NIGHT, 2, colours), title)) }
  if data.note then text(out, WIDTH - RIGHT, 26, "soft", "end", data.note) end
  return out
end

local function finish(out)
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

-- What of the texts of an axis fits: each n-th.
local function every(labels, room)
  local longest = 1
  for _, label in ipairs(labels) do longest = math.max(longest, #label) end
  return math.max(1, math.ceil((longest + 1) * CHARACTER * #labels / room))
end

-- ---- Lines ----

local function bounds(series)
  local low, high
  for _, one in ipairs(series) do
    for _, point in ipairs(one.points) do
      low = math.min(low or point.min, point.min)
      high = math.max(high or point.max, point.max)
    end
  end
  return low, high
end

local function value_scale(low, high, from, to)
  if low > 0 and high / low >= 100 then
    return scale.log(10 ^ math.floor(math.log(low) / math.log(10) + 1e-9),
      10 ^ math.ceil(math.log(high) / math.log(10) - 1e-9), from, to)
  end
  -- Nought belongs to it where that leaves most of the room to the values.
  if low > 0 and low < high * 0.7 then low = 0 end
  if high < 0 and high > low * 0.7 then high = 0 end
  return scale.linear(low, high, from, to, 6)
end

-- The names of the lines, in as many rows as they need; where those end.
local function legend(out, data)
  local x, y = LEFT, 46
  for i, one in ipairs(data.series) do
    if one.name then
      local width = 36 + #one.name * CHARACTER
      if x > LEFT and x + width > WIDTH then x, y = LEFT, y + 18 end
      put(out, '<rect class="f%d" x="%.1f" y="%d" width="14" height="4" rx="2"/>', i, x, y - 6)
      text(out, x + 19, y, "ink", "start", one.name)
      x = x + width
    end
  end
  return y + 18
end

local function frame(out, data, xs, ys, right, top, bottom)
  for _, tick in ipairs(ys.ticks) do
    local y = ys.at(tick)
    line(out, "grid", LEFT, y, right, y)
    text(out, LEFT - 8, y + 4, "soft", "end", scale.number(tick))
  end
  local labels = {}
  for i, tick in ipairs(xs.ticks) do labels[i] = scale.number(tick) end
  local step = every(labels, right - LEFT)
  for i = 1, #labels, step do
    local x = xs.at(xs.ticks[i])
    line(out, "axis", x, bottom, x, bottom + 5)
    text(out, x, bottom + 20, "soft", "middle", labels[i])
  end
  line(out, "axis", LEFT, bottom, right, bottom)
  text(out, (LEFT + right) / 2, bottom + 46, "ink", "middle", data.x)
  text(out, 0, 0, "ink", "middle", data.y,
    (' transform="translate(20 %.1f) rotate(-90)"'):format((top + bottom) / 2))
end

local function draw_series(out, number, one, xs, ys)
  local path = {}
  for _, point in ipairs(one.points) do
    local x = xs.at(point.x)
    if point.x_before_hole or #path == 0 then
      path[#path + 1] = ("M%.1f %.1f"):format(x, ys.at(point.mean))
    else
      path[#path + 1] = ("L%.1f %.1f"):format(x, ys.at(point.mean))
    end
    if point.max > point.min then
      line(out, ("l%d"):format(number), x, ys.at(point.min), x, ys.at(point.max))
    end
  end
  put(out, '<path class="line l%d" d="%s"/>', number, table.concat(path, " "))
  for _, point in ipairs(one.points) do
    put(out, '<circle class="f%d" cx="%.1f" cy="%.1f" r="3.2"><title>%s</title></circle>',
      number, xs.at(point.x), ys.at(point.mean), escape(point.words))
  end
end

--- Lines: data has title, x and y (what the axes say), all_x (numbers, in order) and series, a list
--- of { name, points = { { x, mean, min, max, words, x_before_hole } } }.
function M.lines(data)
  local right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
  local out = begin(data, WIDTH, HEIGHT, #data.series)
  local all = data.all_x
  local inside = { LEFT + 12, right - 12 }
  local xs = scale.is_geometric(all) and scale.log(all[1], all[#all], inside[1], inside[2], all)
    or scale.linear(all[1], all[#all], inside[1], inside[2], 8, true)
  local low, high = bounds(data.series)
  local top = legend(out, data)
  local ys = value_scale(low, high, bottom, top)
  frame(out, data, xs, ys, right, top, bottom)
  for i, one in ipairs(data.series) do draw_series(out, i, one, xs, ys) end
  return finish(out)
end

--- How many lines a picture has at the most.
M.most_series = #COLOURS

-- ---- Bars ----

local ROW = 30

--- Bars: data has title, x (what the names are), y and bars, a list of { name, mean, min, max,
--- words }.
function M.bars(data)
  local longest, low, high = #data.x, 0, 0
  for _, bar in ipairs(data.bars) do
    longest = math.max(longest, #bar.name)
    low, high = math.min(low, bar.min), math.max(high, bar.max)
  end
  local left = math.min(300, 28 + longest * CHARACTER)
  local right, bottom = WIDTH - 90, TOP + #data.bars * ROW
  local out = begin(data, WIDTH, bottom + BOTTOM, 1)
  local xs = scale.linear(low, high, left, right, 6)
  text(out, left - 8, TOP - 10, "ink", "end", data.x)
  for _, tick in ipairs(xs.ticks) do
    line(out, "grid", xs.at(tick), TOP - 4, xs.at(tick), bottom)
    text(out, xs.at(tick), bottom + 20, "soft", "middle", scale.number(tick))
  end
  for i, bar in ipairs(data.bars) do
    local y = TOP + (i - 1) * ROW
    local from, to = xs.at(math.min(0, bar.mean)), xs.at(math.max(0, bar.mean))
    put(out, '<rect class="f1" x="%.1f" y="%d" width="%.1f" height="%d" rx="2">'
      .. "<title>%s</title></rect>", from, y + 5, to - from, ROW - 10, escape(bar.words))
    if bar.max > bar.min then
      line(out, "axis", xs.at(bar.min), y + ROW / 2, xs.at(bar.max), y + ROW / 2)
    end
    text(out, left - 8, y + ROW / 2 + 5, "ink", "end", bar.name)
    text(out, math.max(to, xs.at(bar.max)) + 6, y + ROW / 2 + 5, "ink", "start",
      scale.number(bar.mean))
  end
  line(out, "axis", xs.at(0), TOP - 4, xs.at(0), bottom)
  text(out, (left + right) / 2, bottom + 46, "ink", "middle", data.y)
  return finish(out)
end

-- ---- Heat maps ----

local function heat_scale(cells)
  local low, high
  for _, cell in pairs(cells) do
    low, high = math.min(low or cell.mean, cell.mean), math.max(high or cell.mean, cell.mean)
  end
  local logarithmic = low > 0 and high / low >= 100
  local made = (logarithmic and scale.log or scale.linear)(low, high, 0, 1, 4, true)
  if low == high then made = { at = function() return 0.5 end } end
  return made, low, high, logarithmic
end

local function heat_legend(out, data, x, bottom, low, high, logarithmic)
  local height = math.min(200, bottom - TOP)
  for i = 0, 39 do
    put(out, '<rect x="%.1f" y="%.1f" width="14" height="%.1f" fill="%s"/>', x,
      TOP + height * (39 - i) / 40, height / 40 + 0.5, (scale.colour(i / 39)))
  end
  text(out, x + 20, TOP + 10, "soft", "start", scale.number(high))
  text(out, x + 20, TOP + height, "soft", "start", scale.number(low))
  text(out, 0, 0, "ink", "middle", data.y .. (logarithmic and ", logarithmic" or ""),
    (' transform="translate(%.1f %.1f) rotate(90)"'):format(x + 74, TOP + height / 2))
end

--- A heat map: data has title, x, y (what the colours are), rows_name, columns and rows (lists of
--- texts), and cells["COLUMN,ROW"] (both from 1) = { mean, words }.
function M.heat(data)
  local longest = 4
  for _, row in ipairs(data.rows) do longest = math.max(longest, #row) end
  local left, right = math.min(260, 50 + longest * CHARACTER), WIDTH - 110
  local height = math.max(14, math.min(46, 360 / #data.rows))
  local width, bottom = (right - left) / #data.columns, TOP + height * #data.rows
  local out = begin(data, WIDTH, math.max(bottom + BOTTOM, TOP + 240), 0)
  local shade, low, high, logarithmic = heat_scale(data.cells)
  for row = 1, #data.rows do
    local y = bottom - row * height
    for column = 1, #data.columns do
      local x, cell = left + (column - 1) * width, data.cells[column .. "," .. row]
      local fill, ink = "none", nil
      if cell then fill, ink = scale.colour(shade.at(cell.mean)) end
      put(out, '<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" %s>%s</rect>', x + 0.5, y + 0.5,
        math.max(1, width - 1), height - 1, cell and ('fill="%s"'):format(fill) or 'class="hole"',
        cell and ("<title>%s</title>"):format(escape(cell.words)) or "")
      local words = cell and scale.number(cell.mean)
      if words and #words * CHARACTER < width - 4 and height >= 18 then
        put(out, '<text x="%.1f" y="%.1f" text-anchor="middle" fill="%s">%s</text>', x + width / 2,
          y + height / 2 + 4.5, ink, escape(words))
      end
    end
  end
  local step = every(data.columns, right - left)
  for i = 1, #data.columns, step do
    text(out, left + (i - 0.5) * width, bottom + 18, "soft", "middle", data.columns[i])
  end
  for i = 1, #data.rows, math.ceil(14 / height) do
    text(out, left - 8, bottom - (i - 0.5) * height + 4.5, "soft", "end", data.rows[i])
  end
  text(out, (left + right) / 2, bottom + 44, "ink", "middle", data.x)
  text(out, 0, 0, "ink", "middle", data.rows_name,
    (' transform="translate(20 %.1f) rotate(-90)"'):format((TOP + bottom) / 2))
  heat_legend(out, data, right + 14, bottom, low, high, logarithmic)
  return finish(out)
end

return M
