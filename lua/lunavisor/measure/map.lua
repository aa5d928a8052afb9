-- SPDX-License-Identifier: MIT
-- luna map: what of a VM is where, as a picture (SVG): a column for each space with its regions,
-- their rights and slots, and the devices between them; one for the ports.

local stats = require "lunavisor.measure.stats"
local sorted = require "lunavisor.text.sorted"

local M = {}

local WIDTH, ROW, GAP, TOP, LEFT = 360, 24, 10, 56, 16 -- pixels

local COLOURS = { rwx = "#cfe8cf", ["r-x"] = "#f4e3b5", ["---"] = "#dddddd", device = "#cfdff4" }

--- A text as SVG and HTML have it.
function M.escape(text)
  return (tostring(text):gsub('[&<>"]', { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;",
    ['"'] = "&quot;" }))
end

-- A thing from `first` on: { first, size, text, colour }.
local function row(first, size, text, colour)
  return { first = first, size = size, colour = colour,
    text = ("0x%x..0x%x  %s"):format(first, first + size - 1, text) }
end

local function device_rows(vm, list, kind)
  for _, trap in pairs(vm.traps) do
    if trap.kind == kind then
      list[#list + 1] = row(trap.first, trap.length, stats.name_of(trap), COLOURS.device)
    end
  end
end

local function space_rows(vm, space)
  local list = {}
  for _, region in ipairs(space:regions()) do
    list[#list + 1] = row(region.gpa, region.size, region.rights
      .. (region.slot and ", slot " .. region.slot or ""), COLOURS[region.rights] or "#ead7f0")
  end
  device_rows(vm, list, "mmio")
  return list
end

local function in_order(list)
  table.sort(list, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    return a.text < b.text
  end)
  return list
end

-- The columns of a VM: a list of { title, rows }.
local function columns_of(vm)
  local columns = {}
  for _, id in ipairs(sorted(vm.spaces)) do
    columns[#columns + 1] = { title = "space " .. id,
      rows = in_order(space_rows(vm, vm.spaces[id])) }
  end
  for _, pair in ipairs { { "pio", "ports" }, { "msr", "MSRs" } } do
    local list = {}
    device_rows(vm, list, pair[1])
    if #list > 0 then columns[#columns + 1] = { title = pair[2], rows = in_order(list) } end
  end
  return columns
end

local function draw_column(out, column, left)
  out[#out + 1] = ('<text x="%d" y="%d" font-weight="bold">%s</text>'):format(left, TOP - 10,
    M.escape(column.title))
  local y, last = TOP, nil
  for _, one in ipairs(column.rows) do
    if last and one.first > last then y = y + GAP end -- nothing is there
    out[#out + 1] = ('<rect x="%d" y="%d" width="%d" height="%d" fill="%s" stroke="#555"/>'):format(
      left, y, WIDTH - 2 * GAP, ROW, one.colour)
    out[#out + 1] = ('<text x="%d" y="%d">%s</text>'):format(left + 6, y + 16, M.escape(one.text))
    y, last = y + ROW, one.first + one.size
  end
  return y
end

--- The picture of a VM, an SVG document.
function M.svg(vm)
  local out, bottom, columns = {}, TOP, columns_of(vm)
  for i, column in ipairs(columns) do
    bottom = math.max(bottom, draw_column(out, column, LEFT + (i - 1) * WIDTH))
  end
  local width, height = LEFT + #columns * WIDTH, bottom + LEFT
  local title = ("%s on %s, %d vCPU%s"):format(vm.machine and vm.machine.kind or "vm", vm.accel,
    #vm.vcpus, #vm.vcpus == 1 and "" or "s")
  return ([[
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d"
  font-family="monospace" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="24" font-size="14">%s</text>
%s
</svg>
]]):format(width, height, width, height, LEFT, M.escape(title), table.concat(out, "\n"))
end

return M
