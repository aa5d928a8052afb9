-- SPDX-License-Identifier: MIT
-- luna map: what of a VM is where, as a picture (SVG): each space with its regions, their rights,
-- buffers and slots, and the devices between them; the ports; the MSRs.

local markup = require "lunavisor.text.markup"
local point = require "lunavisor.text.point"
local sorted = require "lunavisor.text.sorted"
local stats = require "lunavisor.measure.stats"
local units = require "lunavisor.text.units"

local M = {}

-- Pixels; a character of the monospaced font is 7.25 wide at most.
local WIDTH, ROW, GAP, HEAD, EDGE, LETTER = 376, 22, 9, 34, 12, 7.25
local ACROSS, MOST = 3, 18 -- columns beside each other, rows in a column
local SHIFT = 12           -- of what lies within the row above

local STYLE = [[
.map-page { fill: #ffffff; } .map { fill: #1d2430; } .map-soft { fill: #5b6675; }
.map-row { stroke: #7c8796; fill: #ead7f0; } .map-rwx { fill: #d3ead6; } .map-rx { fill: #f6e6ba; }
.map-none { fill: #e0e3e8; } .map-device { fill: #d3e1f6; }
@media screen and (prefers-color-scheme: dark) {
.map-page { fill: #1a2029; } .map { fill: #e4e8ee; } .map-soft { fill: #9aa6b5; }
.map-row { stroke: #667284; fill: #4a3854; } .map-rwx { fill: #25452f; } .map-rx { fill: #52451c; }
.map-none { fill: #343c47; } .map-device { fill: #253b5c; } }]]

local CLASSES = { rwx = "map-rwx", ["r-x"] = "map-rx", ["---"] = "map-none" }

-- ---- What is where ----

-- A thing from `first` on; `more` of it is for the pointer.
local function row(first, size, name, class, more)
  return { first = first, last = first + size - 1, size = size, name = name, class = class,
    more = more or "" }
end

local function device_rows(vm, list, kind)
  for _, trap in pairs(vm.traps) do
    if trap.kind == kind then
      list[#list + 1] = row(trap.first, trap.length, stats.name_of(trap), "map-device")
    end
  end
end

local function space_rows(vm, space)
  local list = {}
  for _, region in ipairs(space:regions()) do
    list[#list + 1] = row(region.gpa, region.size, region.rights
      .. (region.slot and ", slot " .. region.slot or ""), CLASSES[region.rights] or "",
      (", buffer %d+0x%x"):format(region.buffer_id, region.offset))
  end
  device_rows(vm, list, "mmio")
  return list
end

-- By address; of two at one address the larger first, in which the other lies.
local function in_order(list)
  table.sort(list, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    if a.last ~= b.last then return a.last > b.last end
    return a.name < b.name
  end)
  local last = -1
  for _, one in ipairs(list) do
    one.within, one.behind = one.first <= last, last >= 0 and one.first > last + 1
    last = math.max(last, one.last)
  end
  return list
end

-- A list, in columns of up to MOST rows that are about equally long.
local function add_columns(columns, title, list, sizes)
  local parts = math.max(1, math.ceil(#list / MOST))
  local each = math.ceil(#list / parts)
  for part = 1, parts do
    local column = { title = part == 1 and title or title .. ", further", rows = {}, sizes = sizes }
    for i = (part - 1) * each + 1, math.min(part * each, #list) do
      column.rows[#column.rows + 1] = list[i]
    end
    columns[#columns + 1] = column
  end
end

local function columns_of(vm)
  local columns = {}
  for _, id in ipairs(sorted(vm.spaces)) do
    add_columns(columns, "space " .. id, in_order(space_rows(vm, vm.spaces[id])), true)
  end
  for _, pair in ipairs { { "pio", "ports" }, { "msr", "MSRs" } } do
    local list = {}
    device_rows(vm, list, pair[1])
    if #list > 0 then add_columns(columns, pair[2], in_order(list)) end
  end
  return columns
end

-- ---- The picture ----

local function put(out, form, ...)
  out[#out + 1] = form:format(...)
end

-- A text that ends, where it is longer than there is room, with dots.
local function cut(text, room)
  local most = math.max(1, math.floor(room / LETTER))
  if #text <= most then return text end
  return text:sub(1, most - 2):gsub("[\192-\255][\128-\191]*$", "") .. ".."
end

local function hex(value) return ("0x%x"):format(value) end

-- From the left of a column: where the dots between the addresses are, and where names begin.
local function edges_of(column)
  local first, last, within = 1, 1, 0
  for _, one in ipairs(column.rows) do
    first = math.max(first, #hex(one.first))
    last = math.max(last, one.size > 1 and #hex(one.last) + 2 or 0)
    if one.within then within = SHIFT end
  end
  local dots = 7 + within + first * LETTER
  return dots, dots + (last + 2) * LETTER
end

local function draw_row(out, one, left, y, column)
  local shift, width = one.within and SHIFT or 0, WIDTH - 2 * GAP
  local base, size = y + 15, column.sizes and units.size(one.size):gsub("bytes?", "B") or ""
  put(out, '<g><title>%s</title><rect class="map-row %s" x="%d" y="%d" width="%d" height="%d"/>',
    markup.escape(("%s..%s  %s%s"):format(hex(one.first), hex(one.last), one.name, one.more)),
    one.class, left + shift, y, width - shift, ROW)
  put(out, '<text class="map" x="%.1f" y="%d" text-anchor="end">%s</text>', left + column.dots,
    base, hex(one.first))
  if one.size > 1 then
    put(out, '<text class="map" x="%.1f" y="%d">..%s</text>', left + column.dots, base,
      hex(one.last))
  end
  put(out, '<text class="map" x="%.1f" y="%d">%s</text>', left + column.names, base,
    markup.escape(cut(one.name, width - column.names - (#size + 2) * LETTER)))
  if size ~= "" then
    put(out, '<text class="map-soft" x="%.1f" y="%d" text-anchor="end">%s</text>',
      left + width - 6, base, size)
  end
  put(out, "</g>")
end

-- Draws a column; returns its lower end.
local function draw_column(out, column, left, top)
  put(out, '<text class="map" x="%d" y="%d" font-weight="bold">%s</text>', left, top + 14,
    markup.escape(column.title))
  column.dots, column.names = edges_of(column)
  local y = top + 22
  if #column.rows == 0 then
    put(out, '<text class="map-soft" x="%d" y="%d">nothing</text>', left + 7, y + 15)
    return y + ROW
  end
  for i, one in ipairs(column.rows) do
    if one.behind and i > 1 then y = y + GAP end -- nothing is there
    draw_row(out, one, left, y, column)
    y = y + ROW
  end
  return y
end

local function picture(vm)
  local out, columns = {}, columns_of(vm)
  local top, bottom = HEAD, HEAD
  for i, column in ipairs(columns) do
    local at = (i - 1) % ACROSS
    if at == 0 and i > 1 then top = bottom + 2 * GAP end
    bottom = math.max(bottom, draw_column(out, column, EDGE + at * WIDTH, top))
  end
  local width, height = 2 * EDGE + math.min(ACROSS, #columns) * WIDTH - 2 * GAP, bottom + EDGE
  local title = ("%s on %s, %d vCPU%s"):format(vm.machine and vm.machine.kind or "vm", vm.accel,
    #vm.vcpus, #vm.vcpus == 1 and "" or "s")
  return ([[
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d"
  font-family="ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', monospace" font-size="12">
<style>%s</style>
<rect class="map-page" width="100%%" height="100%%"/>
<text class="map" x="%d" y="22" font-size="14">%s</text>
%s
</svg>
]]):format(width, height, width, height, STYLE, EDGE, markup.escape(title),
    table.concat(out, "\n"))
end

--- The picture of a VM, an SVG document.
function M.svg(vm)
  return point.all(picture, vm)
end

return M
