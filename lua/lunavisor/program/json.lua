-- SPDX-License-Identifier: MIT
-- Values as JSON: numbers, strings, booleans, lists, and tables with names for keys, in order.

local sorted = require "lunavisor.text.sorted"

local M = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function text(value)
  return '"' .. value:gsub('[%c"\\\127]', function(char)
    return ESCAPES[char] or ("\\u%04x"):format(char:byte())
  end) .. '"'
end

local function number(value)
  return ("%.14g"):format(value)
end

local function list(value, indent)
  local parts = {}
  for i, one in ipairs(value) do parts[i] = M.encode(one, indent) end
  return "[" .. table.concat(parts, ", ") .. "]"
end

local function object(value, indent)
  local inner, parts = indent .. "  ", {}
  for i, name in ipairs(sorted(value)) do
    parts[i] = ("%s%s: %s"):format(inner, text(name), M.encode(value[name], inner))
  end
  if #parts == 0 then return "{}" end
  return "{\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "}"
end

--- The value as JSON.
function M.encode(value, indent)
  local kind = type(value)
  if kind == "string" then return text(value) end
  if kind == "number" then return number(value) end
  if kind ~= "table" then return tostring(value) end
  return (value[1] ~= nil and list or object)(value, indent or "")
end

return M
