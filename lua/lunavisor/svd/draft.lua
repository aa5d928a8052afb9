-- SPDX-License-Identifier: MIT
-- The text of a device's table for a peripheral of an SVD file. All that comes from the file is in
-- strings and comments of one line, or a name.

local bits = require "lunavisor.device.bits"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Words ----

local EXACT = u64.lshift(1, 53)

local function text(value)
  return ("%q"):format((value:gsub("%c", " ")))
end

local function comment(value)
  return (value:gsub("%c", " "))
end

-- Keys that are no words of Lua are names by themselves.
local plain = setmetatable({}, { __index = function(set, name)
  local is = name:find "^[%a_][%w_]*$" and (loadstring or load)("local " .. name) ~= nil
  set[name] = is or false
  return set[name]
end })

local function key(name)
  return plain[name] and name or ("[%s]"):format(text(name))
end

-- A number, or a u64 where a number of LuaJIT is not exact.
local function number(value)
  if u64.lt(EXACT, value) then return ('u64 "%s"'):format(u64.hex(value)) end
  return u64.hex(value)
end

local function offset(value)
  return ("0x%02x"):format(value)
end

-- ---- Fields ----

local function enum_of(field)
  if not field.enum or #field.enum == 0 then return nil end
  local parts = {}
  for i, one in ipairs(field.enum) do parts[i] = key(one.name) .. " = " .. number(one.value) end
  return "enum = { " .. table.concat(parts, ", ") .. " }"
end

local function add_field(out, field, register, indent)
  local parts = { field.low == field.high and tostring(field.low)
    or ('"%d:%d"'):format(field.high, field.low) }
  if field.access ~= register.access then parts[2] = text(field.access) end
  if field.doc then parts[#parts + 1] = "doc = " .. text(field.doc) end
  parts[#parts + 1] = enum_of(field)
  if field.out then
    out[#out + 1] = ("%s-- not in the table: %s"):format(indent, comment(field.out))
    indent = indent .. "-- "
  end
  for _, remark in ipairs(field.remarks) do
    out[#out + 1] = ("%s-- %s"):format(indent, comment(remark))
  end
  out[#out + 1] = ("%s%s = { %s },"):format(indent, key(field.name), table.concat(parts, ", "))
end

-- ---- Registers ----

local function add_register(out, register, width)
  local indent = "    "
  if register.out then
    out[#out + 1] = ("%s-- not in the table: %s"):format(indent, comment(register.out))
    indent = indent .. "-- "
  end
  for _, remark in ipairs(register.remarks) do
    out[#out + 1] = ("%s-- %s"):format(indent, comment(remark))
  end
  local parts = { "at = " .. offset(register.at) }
  local function add(form, ...) parts[#parts + 1] = form:format(...) end
  if register.width ~= width then add("width = %d", register.width) end
  if register.count then add("count = %d, stride = %d", register.count, register.stride) end
  if register.access ~= "rw" then add("access = %q", register.access) end
  if register.reset ~= bits.zero then add("reset = %s", number(register.reset)) end
  if register.rest then add("rest = %q", register.rest) end
  if register.doc then add("doc = %s", text(register.doc)) end
  local head = ("%s%s = { %s"):format(indent, register.name, table.concat(parts, ", "))
  local fields = {}
  for _, field in ipairs(register.fields) do add_field(fields, field, register, indent .. "  ") end
  if #fields == 0 then
    out[#out + 1] = head .. " },"
    return
  end
  out[#out + 1] = head .. ", fields = {"
  for _, line in ipairs(fields) do out[#out + 1] = line end
  out[#out + 1] = indent .. "} },"
end

-- The width that most registers have.
local function usual_width(list)
  local counts, best = {}, 4
  for _, register in ipairs(list) do
    counts[register.width] = (counts[register.width] or 0) + 1
  end
  for _, width in ipairs { 8, 2, 1 } do
    if (counts[width] or 0) > (counts[best] or 0) then best = width end
  end
  return best
end

-- ---- Peripherals ----

--- The lines of the table of a peripheral (fit.lua), without what stands around: an expression.
function M.table(self, endian)
  local width, out = usual_width(self.registers), {}
  out[1] = ('{ device "%s" {'):format(self.title)
  local head = ("  width = %d,"):format(width)
  if self.size > 0 then head = ("%s size = %s,"):format(head, offset(self.size)) end
  if endian == "big" then head = head .. ' endian = "big",' end
  out[#out + 1] = head
  if self.doc then out[#out + 1] = ("  doc = %s,"):format(text(self.doc)) end
  for _, remark in ipairs(self.remarks) do out[#out + 1] = "  -- " .. comment(remark) end
  out[#out + 1] = "  registers = {"
  for _, register in ipairs(self.registers) do add_register(out, register, width) end
  out[#out + 1] = "  },"
  if #self.interrupts > 0 then
    out[#out + 1] = "  lines = {"
    for _, line in ipairs(self.interrupts) do
      out[#out + 1] = ("    %s = true,%s"):format(key(line.name),
        line.number and (" -- interrupt %d"):format(line.number) or "")
    end
    out[#out + 1] = "  },"
  end
  out[#out + 1] = ("}, mmio = 0x%x }"):format(self.base)
  return out
end

--- The head of a file: where it comes from, and what it needs.
function M.head(title, source, lines)
  local out = { ("-- %s, from %s by luna device import: a table to begin with, without what the"
    ):format(comment(title), comment(source)), "-- device does. A description may be cut short.",
    'local device = require "lunavisor.device"' }
  for _, line in ipairs(lines) do
    if line:find('u64 "0x', 1, true) then
      out[#out + 1] = 'local u64 = require("lunavisor").u64'
      break
    end
  end
  out[#out + 1] = ""
  return out
end

return M
