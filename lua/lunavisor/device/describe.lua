-- SPDX-License-Identifier: MIT
-- The datasheet of a device, from its table: in Markdown, or its bit fields as SVG figures; and
-- what of the tables is not modelled.

local class = require "lunavisor.class"
local made = require "lunavisor.device.class"
local dump = require "lunavisor.device.dump"
local point = require "lunavisor.text.point"
local rules = require "lunavisor.device.rule"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Markdown ----

local function hex(value, digits)
  local text = u64.hex(value):sub(3)
  return "0x" .. ("0"):rep((digits or 1) - #text) .. text
end

local function bits_text(field)
  return field.high == field.low and tostring(field.low) or ("%d:%d"):format(field.high, field.low)
end

local function by_value(enum)
  local list = {}
  for name, value in pairs(enum or {}) do list[#list + 1] = { name = name, value = value } end
  table.sort(list, function(a, b) return u64.lt(a.value, b.value) end)
  for i, entry in ipairs(list) do list[i] = ("%s %s"):format(u64.hex(entry.value), entry.name) end
  return list
end

-- What is said of a register or field beside its numbers.
local function notes(about)
  local list = {}
  if about.doc then list[#list + 1] = about.doc end
  for _, text in ipairs(by_value(about.enum)) do list[#list + 1] = text end
  if about.fifo then list[#list + 1] = ("FIFO of %d"):format(about.fifo) end
  if about.count then
    list[#list + 1] = ("%d of them, %d byte%s apart"):format(about.count, about.stride,
      about.stride == 1 and "" or "s")
  end
  if about.when then list[#list + 1] = "at times" end
  if about.port then list[#list + 1] = about.port end
  if about.follows then list[#list + 1] = "follows " .. about.follows end
  if about.todo then list[#list + 1] = "not modelled: " .. about.todo end
  return table.concat(list, "; ")
end

local function row(...)
  return "| " .. table.concat({ ... }, " | ") .. " |"
end

local MOST = 8 -- reset values of an array

local function reset_text(register)
  local digits = 2 * register.width
  if not register.resets then return hex(register.reset, digits) end
  local list = {}
  for i = 0, math.min(register.count, MOST) - 1 do list[i + 1] = hex(register.resets[i], digits) end
  return table.concat(list, " ") .. (register.count > MOST and " ..." or "")
end

local function registers_of(layout, region, out)
  out[#out + 1] = row("Offset", "Register", "Bytes", "Access", "Reset", "")
  out[#out + 1] = row("---", "---", "---", "---", "---", "---")
  for _, register in ipairs(layout.registers) do
    if register.region == region.name then
      out[#out + 1] = row(register.at and hex(register.at, 2) or "-", register.name,
        tostring(register.width), register.access, reset_text(register),
        notes(register))
    end
  end
end

local function fields_of(register, out)
  out[#out + 1] = ("\n### %s%s\n"):format(register.name,
    register.at and (" (%s)"):format(hex(register.at, 2)) or "")
  out[#out + 1] = row("Bits", "Field", "Access", "Reset", "")
  out[#out + 1] = row("---", "---", "---", "---", "---")
  for i = #register.fields, 1, -1 do
    local field = register.fields[i]
    out[#out + 1] = row(bits_text(field), field.name, field.access, u64.hex(field.reset),
      notes(field))
  end
end

local function markdown(layout)
  local out = { "# " .. layout.name .. "\n" }
  if layout.doc then out[#out + 1] = layout.doc .. "\n" end
  for _, region in ipairs(layout.regions) do
    if #layout.regions > 1 then out[#out + 1] = ("\n## Region %s\n"):format(region.name) end
    registers_of(layout, region, out)
  end
  for _, register in ipairs(layout.registers) do
    if #register.fields > 0 then fields_of(register, out) end
  end
  if #layout.lines > 0 then out[#out + 1] = "\n## Lines\n" end
  for _, about in ipairs(layout.lines) do
    out[#out + 1] = ("- `%s`%s"):format(about.name,
      about.rule and ": " .. rules.text(about.rule) or "")
  end
  return table.concat(out, "\n") .. "\n"
end

-- ---- SVG ----

local CELL, ROW, TOP, LEFT = 28, 30, 34, 10

local function escape(text)
  return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;",
    ['"'] = "&quot;" }))
end

local function text_at(x, y, text, size)
  return ('<text x="%g" y="%g" font-size="%d" text-anchor="middle">%s</text>'):format(x, y, size,
    escape(text))
end

-- The fields of a register and what is between them, from the highest bit down.
local function pieces_of(register)
  local list, above = {}, 8 * register.width - 1
  for i = #register.fields, 1, -1 do
    local field = register.fields[i]
    if field.high < above then list[#list + 1] = { high = above, low = field.high + 1 } end
    list[#list + 1] = field
    above = field.low - 1
  end
  if above >= 0 then
    list[#list + 1] = { high = above, low = 0, name = #list == 0 and register.name or nil,
      access = #list == 0 and register.access or nil }
  end
  return list
end

-- A box; registers of more than 32 bits are drawn with narrower ones.
local function box(piece, register, y, cell)
  local x = LEFT + (8 * register.width - 1 - piece.high) * cell
  local width = (piece.high - piece.low + 1) * cell
  local fill = not piece.name and "#ddd" or piece.todo and "#fe9" or "#fff"
  local out = { ('<rect x="%g" y="%g" width="%g" height="%d" fill="%s" stroke="#000"/>'):format(x,
    y, width, ROW, fill) }
  if piece.name then
    local room = math.max(1, math.floor(width / 7))
    out[#out + 1] = text_at(x + width / 2, y + 14, piece.name:sub(1, room), 11)
    out[#out + 1] = text_at(x + width / 2, y + 26, (piece.access or ""):sub(1, room), 9)
  end
  out[#out + 1] = text_at(x + cell / 2, y - 3, tostring(piece.high), 9)
  if piece.low < piece.high then
    out[#out + 1] = text_at(x + width - cell / 2, y - 3, tostring(piece.low), 9)
  end
  return table.concat(out, "\n")
end

local function svg(layout)
  local out, y = {}, TOP
  for _, register in ipairs(layout.registers) do
    local cell = register.width == 8 and CELL / 2 or CELL
    out[#out + 1] = ('<text x="%d" y="%d" font-size="12" font-weight="bold">%s%s</text>'):format(
      LEFT, y - 16, escape(register.name), register.at and " (" .. hex(register.at, 2) .. ")" or "")
    for _, piece in ipairs(pieces_of(register)) do
      out[#out + 1] = box(piece, register, y, cell)
    end
    y = y + ROW + TOP
  end
  return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
    .. 'font-family="sans-serif">\n%s\n</svg>\n'):format(2 * LEFT + 32 * CELL, y,
    table.concat(out, "\n"))
end

local forms = { markdown = markdown, svg = svg }

--- The datasheet of a device or class as text: "markdown" (where nil), or "svg", a figure of the
--- bits of each register.
function M.describe(device, form)
  local layout = dump.layout_of(device) and dump.layout(device)
  if not layout then
    error(("device.describe: a device or a class of devices expected, got %s"):format(
      class.describe(device)), 2)
  end
  local make = forms[form or "markdown"]
  if not make then
    error(("device.describe: 'markdown' or 'svg' expected, got %s"):format(tostring(form)), 2)
  end
  return point.all(make, layout)
end

-- ---- What is left ----

local Coverage = {}

function Coverage.__tostring(list)
  local out = {}
  for i, entry in ipairs(list) do
    out[i] = ("%s.%s: %s%s"):format(entry.device, entry.name, entry.todo,
      entry.changes > 0 and (", changed %d time%s"):format(entry.changes,
        entry.changes == 1 and "" or "s") or "")
  end
  return table.concat(out, "\n")
end

local function add(list, layout, todos)
  for _, register in ipairs(layout.registers) do
    if register.todo then
      list[#list + 1] = { device = layout.name, name = register.name, todo = register.todo,
        changes = todos[register.name] or 0 }
    end
    for _, field in ipairs(register.fields) do
      local name = register.name .. "." .. field.name
      if field.todo then
        list[#list + 1] = { device = layout.name, name = name, todo = field.todo,
          changes = todos[name] or 0 }
      end
    end
  end
end

--- What is declared and not modelled: a list of { device =, name =, todo =, changes = (how often a
--- guest has changed it) } of a device, a class, or of all classes that were made.
function M.coverage(device)
  local list = {}
  if device == nil then
    local classes = {}
    for kind in pairs(made.known) do classes[#classes + 1] = kind.layout end
    table.sort(classes, function(a, b) return a.name < b.name end)
    for _, layout in ipairs(classes) do add(list, layout, {}) end
  else
    local layout = dump.layout_of(device)
    if not layout then
      error(("device.coverage: a device or a class of devices expected, got %s"):format(
        class.describe(device)), 2)
    end
    add(list, layout, rawget(device, "todos") or {})
  end
  return setmetatable(list, Coverage)
end

return M
