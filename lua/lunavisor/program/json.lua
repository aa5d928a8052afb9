-- SPDX-License-Identifier: MIT
-- Values as JSON: numbers, strings, booleans, lists, and tables with other keys, in order, whose
-- keys are names then.

local point = require "lunavisor.text.point"
local sorted = require "lunavisor.text.sorted"

local M = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function text(value)
  return '"' .. value:gsub('[%c"\\\127]', function(char)
    return ESCAPES[char] or ("\\u%04x"):format(char:byte())
  end) .. '"'
end

-- Integers of 64 bits as they are, although few readers have so many.
local function number(value)
  if type(value) ~= "number" then return (tostring(value):gsub("U?LL$", "")) end
  if value ~= value or value == math.huge or value == -math.huge then return "null" end
  if math.type and math.type(value) == "integer" then return ("%d"):format(value) end
  return point.number("%.14g", value)
end

local function list(value, indent)
  local parts = {}
  for i, one in ipairs(value) do parts[i] = M.encode(one, indent) end
  return "[" .. table.concat(parts, ", ") .. "]"
end

local function is_list(value)
  if value[1] == nil then return false end
  local count = #value
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key > count or key % 1 ~= 0 then return false end
  end
  return true
end

local function object(value, indent)
  local inner, parts, named = indent and indent .. "  " or "", {}, {}
  for key, one in pairs(value) do named[tostring(key)] = one end
  for i, name in ipairs(sorted(named)) do
    parts[i] = ("%s%s: %s"):format(inner, text(name), M.encode(named[name], indent and inner))
  end
  if #parts == 0 then return "{}" end
  if not indent then return "{" .. table.concat(parts, ", ") .. "}" end
  return "{\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "}"
end

--- The value as JSON: on one line where indent is nil, which else is what its lines begin with.
function M.encode(value, indent)
  local kind = type(value)
  if kind == "string" then return text(value) end
  if kind == "number" or kind == "cdata" then return number(value) end
  if kind ~= "table" then return kind == "boolean" and tostring(value) or "null" end
  return (is_list(value) and list or object)(value, indent)
end

return M
