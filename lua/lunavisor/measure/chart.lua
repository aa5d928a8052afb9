-- SPDX-License-Identifier: MIT
-- A timeline as a picture (SVG in HTML): how many exits came in a second, by device and kind, one
-- upon the other, and when the VM was run. The colours are those of style.lua.

local markup = require "lunavisor.text.markup"
local scale = require "lunavisor.sweep.scale"
local units = require "lunavisor.text.units"

local M = {}

local WIDTH, HEIGHT = 1160, 236               -- pixels
local LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 40 -- what is around the plot
local STRIP = 5                               -- the height of what says when the VM was run
local COLUMNS, COLOURS = 240, 8

local PLOT, FLOOR = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM

local function put(out, form, ...)
  out[#out + 1] = form:format(...)
end

--- The series of a timeline, those with the most first, the rest as one: { name, sum, list }.
function M.layers(timeline)
  local list, made = {}, {}
  for _, series in ipairs(timeline.series) do
    if series.sum > 0 then list[#list + 1] = series end
  end
  table.sort(list, function(a, b)
    if a.sum ~= b.sum then return a.sum > b.sum end
    return a.name < b.name
  end)
  for i, series in ipairs(list) do
    local at = (i < COLOURS or #list == COLOURS) and i or COLOURS
    made[at] = made[at] or { name = series.name, sum = 0, list = {} }
    local layer = made[at]
    layer.list[#layer.list + 1], layer.sum = series, layer.sum + series.sum
    if #layer.list > 1 then layer.name = ("%d others"):format(#layer.list) end
  end
  return made
end

-- Counts of each layer by column.
local function count_layers(layers, counts_of)
  for _, layer in ipairs(layers) do
    layer.counts = {}
    for _, series in ipairs(layer.list) do
      for at, value in pairs(counts_of(series)) do
        layer.counts[at] = (layer.counts[at] or 0) + value
      end
    end
  end
end

local function axes(out, span, rate)
  local down = scale.linear(0, rate, FLOOR, TOP, 5, true)
  for _, tick in ipairs(down.ticks) do
    local y = down.at(tick)
    put(out, '<path class="grid" d="M%d %.1fH%d"/>', LEFT, y, WIDTH - RIGHT)
    put(out, '<text class="tick end" x="%d" y="%.1f">%s</text>', LEFT - 8, y + 4,
      tick == 0 and "0" or units.short(tick) .. "/s")
  end
  local along = scale.linear(0, span, LEFT, LEFT + PLOT, 8, true)
  for _, tick in ipairs(along.ticks) do
    local x = along.at(tick)
    put(out, '<path class="axis" d="M%.1f %dv5"/>', x, FLOOR + STRIP + 2)
    put(out, '<text class="tick %s" x="%.1f" y="%d">%s</text>', x > WIDTH - 60 and "end" or "mid",
      x, FLOOR + STRIP + 20, tick == 0 and "0" or units.time(tick))
  end
end

-- The layers as areas of columns, from below.
local function areas(out, layers, frame)
  local heights = {}
  for number, layer in ipairs(layers) do
    local parts = {}
    for at = 1, frame.count do
      local value = layer.counts[at] or 0
      if value > 0 then
        local height = value * frame.scale(at)
        local below = heights[at] or 0
        heights[at] = below + height
        parts[#parts + 1] = ("M%.1f %.1fh%.2fv%.1fh-%.2fz"):format(frame.x(at), FLOOR - below,
          frame.width(at), -height, frame.width(at))
      end
    end
    put(out, '<path class="c%d" d="%s"/>', number, table.concat(parts))
  end
end

-- What a pointer is told of each column.
local function titles(out, layers, frame)
  for at = 1, frame.count do
    local lines, sum = {}, 0
    for _, layer in ipairs(layers) do
      local value = layer.counts[at] or 0
      sum = sum + value
      if value >= 0.5 then
        lines[#lines + 1] = units.number(math.floor(value + 0.5)) .. "  " .. layer.name
      end
    end
    if sum > 0 then
      local title = ("%s to %s\n%s"):format(units.time((at - 1) * frame.each),
        units.time(math.min(at * frame.each, frame.span)), table.concat(lines, "\n"))
      put(out, '<rect class="hit" x="%.1f" y="%d" width="%.2f" height="%d"><title>%s</title>'
        .. "</rect>", frame.x(at), TOP, frame.width(at), FLOOR - TOP, markup.escape(title))
    end
  end
end

-- When the VM was run, below the axis: the darker, the more of the time.
local function strip(out, runs, span)
  local each, count, counts_of = runs:columns(COLUMNS)
  local counts = counts_of(runs:of "running")
  local function shade(at)
    local width = math.min(each, span - (at - 1) * each)
    return at <= count and width > 0 and math.ceil(math.min(1, (counts[at] or 0) / width) * 5) or 0
  end
  local at = 1
  while at <= count do
    local level, first = shade(at), at
    while at <= count and shade(at) == level do at = at + 1 end
    local from, to = (first - 1) * each, math.min((at - 1) * each, span)
    if level > 0 then
      put(out, '<rect class="run" x="%.1f" y="%d" width="%.2f" height="%d" fill-opacity="%.1f"/>',
        LEFT + PLOT * from / span, FLOOR + 2, PLOT * (to - from) / span, STRIP, level / 5)
    end
  end
end

-- Where columns are: x(at), width(at), and scale(at), the height of a count of 1; and the most that
-- came in a second.
local function frame_of(layers, each, count, span)
  local frame = { each = each, count = count, span = span }
  local function length(at) return math.max(1, math.min(each, span - (at - 1) * each)) end
  local rate = 0
  for at = 1, count do
    local sum = 0
    for _, layer in ipairs(layers) do sum = sum + (layer.counts[at] or 0) end
    rate = math.max(rate, sum / length(at) * 1e9)
  end
  function frame.x(at) return LEFT + PLOT * (at - 1) * each / span end
  function frame.width(at) return PLOT * length(at) / span end
  function frame.scale(at) return (FLOOR - TOP) * 1e9 / (length(at) * rate) end
  return frame, rate
end

--- The picture, and its layers with their sums for a legend; nil where nothing came.
function M.svg(timeline, runs)
  local layers = M.layers(timeline)
  if #layers == 0 then return nil end
  local span = math.max(timeline.last, runs.last, 1000)
  local each, count, counts_of = timeline:columns(COLUMNS)
  count_layers(layers, counts_of)
  local frame, rate = frame_of(layers, each, count, span)
  local out = {}
  axes(out, span, rate)
  areas(out, layers, frame)
  strip(out, runs, span)
  put(out, '<path class="axis" d="M%d %dH%d"/>', LEFT, FLOOR, WIDTH - RIGHT)
  titles(out, layers, frame)
  return ('<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="exits in a second, by '
    .. 'time">\n%s\n</svg>'):format(WIDTH, HEIGHT, table.concat(out, "\n")), layers
end

return M
