-- SPDX-License-Identifier: MIT
-- The framework's C headers, read: the numbers, the structures and the calls that they declare.

local u64 = require "lunavisor.text.u64"

local text = require "lunavisor.hv.header"

local M = {
  constants = {}, -- by name without HV_: a number, or a u64 where that would not be exact
  structures = {}, -- by name: a list of { name =, bits =, size =, count = (of a list), at = }
  calls = {}, -- by name without hv_: a list of { name =, type =, bits =, pointer = }
}

-- ---- Constants ----

-- The u64 of an expression, negated or shifted; nil for anything else. Numbers below 0 are those of
-- 32 bits, as Lua prints them.
local function value_of(expression)
  local sign, number, shift = expression:match "^(-?)(%w-)u*l*%s*<<%s*(%d+)%s*$"
  if not sign then sign, number = expression:match "^(-?)(%w-)u*l*%s*$" end
  local exact = number and (number:match "^0x%x+$" or tonumber(number))
  local value = exact and u64.lshift(u64(exact), tonumber(shift or 0))
  return value and sign == "-" and u64(2 ^ 32) - value or value
end

local function define(name, value)
  local exact = u64.le(value, 2 ^ 53)
  M.constants[name:gsub("^HV_", "")] = exact and u64.tonumber(value) or value
end

for list in text:gmatch "enum[%w_%s]*(%b{})" do
  local following = u64(0)
  for name, expression in list:gmatch "([%u_][%w_]*)%s*=?%s*([^,}]*)" do
    local value = expression:match "%w" and (value_of(expression) or M.constants[expression])
      or following
    define(name, value)
    following = value + u64(1)
  end
end

-- ---- Types ----

local bits = {
  bool = 1, uint8_t = 8, uint16_t = 16, uint32_t = 32, ["unsigned int"] = 32, int = 31,
  uint64_t = 64, int64_t = 64, size_t = 64,
}
for base, name in text:gmatch "typedef ([%w_ ]-) ([%w_]+);" do bits[name] = bits[base] end
for name in text:gmatch "typedef enum%s*%b{}%s*([%w_]+);" do bits[name] = 32 end
for name in text:gmatch "\n(enum [%w_]+)%s*%b{}" do bits[name] = 32 end

for name, body in text:gmatch "struct ([%w_]*)%s*(%b{})" do
  local fields = { size = 0, align = 4 }
  for kind, field, count in body:gmatch "([%w_ ]+) ([%w_]+)%[?(%d*)%]?;" do
    local wide = bits[kind:match "^%s*(.-)$"] or 0 -- of another structure: it is none of those here
    local size = math.ceil(wide / 8)
    local at = fields.size + -fields.size % math.max(size, 1)
    fields[#fields + 1] = {
      name = field, bits = wide, size = size, count = tonumber(count), at = at,
    }
    fields.size = at + size * (tonumber(count) or 1)
    fields.align = math.max(fields.align, size)
  end
  fields.size = fields.size + -fields.size % fields.align
  M.structures[name] = fields
end

-- ---- Calls ----

for name, list in text:gmatch "hv_return_t%s+hv_([%w_]+)(%b())" do
  local parameters = {}
  for one in list:sub(2, -2):gmatch "[^,]+" do
    local kind, star, parameter, array = one:match "^%s*(.-)%s*(%*?)([%w_]+)(%[?%]?)$"
    if kind ~= "" then -- not (void)
      parameters[#parameters + 1] = { name = parameter, type = kind, bits = bits[kind],
        pointer = star .. array ~= "" }
    end
  end
  M.calls[name] = parameters
end

return M
