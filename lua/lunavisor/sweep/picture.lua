-- SPDX-License-Identifier: MIT
-- Which picture a result of a sweep gets: over one parameter or two; the others are averaged.

local chart = require "lunavisor.sweep.chart"
local class = require "lunavisor.class"
local scale = require "lunavisor.sweep.scale"

local M = {}

local function is_numeric(parameter)
  for _, value in ipairs(parameter.values) do
    if not tonumber(value) then return false end
  end
  return true
end

local function index_of(list)
  local found = {}
  for i, value in ipairs(list) do found[value] = i end
  return found
end

-- Numbers in the order of numbers, names as they were said.
local function ordered(parameter)
  local list = {}
  for i, value in ipairs(parameter.values) do list[i] = value end
  if is_numeric(parameter) then
    table.sort(list, function(a, b) return tonumber(a) < tonumber(b) end)
  end
  return list
end

-- The parameters of --over, or the first two of more than one value; "seed" only where it is said.
local function chosen(plan, over)
  local by_name, names, list = {}, {}, {}
  for _, one in ipairs(plan.parameters) do by_name[one.name] = one end
  if over then
    for name in over:gmatch "[^,]+" do
      if not by_name[name] then
        return nil, ("--over: there is no parameter %s%s"):format(name,
          class.hint(name, by_name))
      end
      if names[name] then return nil, ("--over: %s is there twice"):format(name) end
      names[name], list[#list + 1] = true, by_name[name]
    end
    if #list > 2 or #list == 0 then return nil, "--over: one or two parameters expected" end
    return list
  end
  for _, one in ipairs(plan.parameters) do
    if #one.values > 1 and one.name ~= "seed" and #list < 2 then list[#list + 1] = one end
  end
  if #list == 0 then list[1] = plan.parameters[1] end
  if #list == 0 then return nil, "--plot: the sweep has no parameter" end
  return list
end

local function add(cells, key, value)
  local cell = cells[key]
  if not cell then
    cells[key] = { sum = value, count = 1, min = value, max = value }
    return
  end
  cell.sum, cell.count = cell.sum + value, cell.count + 1
  cell.min, cell.max = math.min(cell.min, value), math.max(cell.max, value)
end

-- The values of the result by "COLUMN,ROW", both from 1 in the order of the picture.
local function gather(store, result, columns, rows)
  local cells, plan, known = {}, store.plan, 0
  local place = {}
  for i, one in ipairs(plan.parameters) do place[one.name] = i end
  local column_at, row_at = index_of(columns.list), rows and index_of(rows.list)
  for unit = 1, plan.count do
    local line = store.lines[unit]
    local value = line and line.status == 0 and tonumber(line.results[result])
    if value then
      local values = plan:values(unit)
      local row = rows and row_at[values[place[rows.name]]] or 1
      add(cells, column_at[values[place[columns.name]]] .. "," .. row, value)
      known = known + 1
    end
  end
  for key, cell in pairs(cells) do
    cell.mean = cell.sum / cell.count
    local column, row = key:match "^(%d+),(%d+)$"
    cell.words = columns.name .. "=" .. columns.list[tonumber(column)]
      .. (rows and (", %s=%s"):format(rows.name, rows.list[tonumber(row)]) or "") .. ": "
      .. scale.number(cell.mean) .. (cell.count > 1 and (" (%s to %s, %d units)"):format(
        scale.number(cell.min), scale.number(cell.max), cell.count) or "")
  end
  return cells, known
end

local function side(parameter)
  return { name = parameter.name, list = ordered(parameter), numeric = is_numeric(parameter) }
end

local function series_of(cells, columns, row, name)
  local points, hole = {}, false
  for i, value in ipairs(columns.list) do
    local cell = cells[i .. "," .. row]
    if cell then
      cell.x, cell.x_before_hole, hole = tonumber(value), hole, false
      points[#points + 1] = cell
    else
      hole = true
    end
  end
  return { name = name, points = points }
end

local function draw_lines(data, cells, columns, rows, label)
  data.x, data.all_x, data.series = label(columns.name), {}, {}
  for i, value in ipairs(columns.list) do data.all_x[i] = tonumber(value) end
  for row, value in ipairs(rows and rows.list or { false }) do
    data.series[row] = series_of(cells, columns, row, value
      and ("%s %s"):format(label(rows.name), value))
  end
  return chart.lines(data)
end

local function draw_bars(data, cells, columns, label)
  data.x, data.bars = label(columns.name), {}
  for i, value in ipairs(columns.list) do
    local cell = cells[i .. ",1"]
    if cell then
      cell.name = value
      data.bars[#data.bars + 1] = cell
    end
  end
  return chart.bars(data)
end

local function draw_heat(data, cells, columns, rows, label)
  data.x, data.rows_name, data.cells = label(columns.name), label(rows.name), cells
  data.columns, data.rows = columns.list, rows.list
  return chart.heat(data)
end

local function choose_result(store, result)
  local names, known = store:results(), {}
  for _, name in ipairs(names) do known[name] = true end
  if known[result] then return true end
  return nil, ("--plot: no unit has a result %s%s"):format(result, #names == 0 and ""
    or "; there are " .. table.concat(names, ", "))
end

--- The picture of a result, an SVG document. over: "name" or "name,name"; labels: what axes say, by
--- name. nil, message.
function M.draw(store, result, over, labels)
  local function label(name) return labels[name] or name end
  local parameters, problem = chosen(store.plan, over)
  if not parameters then return nil, problem end
  local ok
  ok, problem = choose_result(store, result)
  if not ok then return nil, problem end
  local columns, rows = side(parameters[1]), parameters[2] and side(parameters[2])
  if rows and rows.numeric and not columns.numeric then columns, rows = rows, columns end
  local cells, known = gather(store, result, columns, rows)
  if known == 0 then return nil, ("--plot: %s is no number in any unit"):format(result) end
  local most = 1
  for _, cell in pairs(cells) do most = math.max(most, cell.count) end
  local data = { y = label(result), title = ("%s over %s%s"):format(result, columns.name,
    rows and " and " .. rows.name or ""),
    note = most > 1 and ("mean of %d units, least to most"):format(most) or nil }
  if not rows then
    return columns.numeric and draw_lines(data, cells, columns, nil, label)
      or draw_bars(data, cells, columns, label)
  end
  if columns.numeric and not rows.numeric and #rows.list <= chart.most_series then
    return draw_lines(data, cells, columns, rows, label)
  end
  return draw_heat(data, cells, columns, rows, label)
end

return M
