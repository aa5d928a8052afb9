-- SPDX-License-Identifier: MIT
-- Values as a prompt shows them, the same on both engines: whole numbers in hexadecimal, objects as
-- they print themselves, tables with what is in them.

local u64 = require "lunavisor.text.u64"

local M = {}

local SMALL, WIDTH, DEPTH, MOST = 10, 76, 3, 64

local function number(value)
  local exact = u64.exact(value)
  if exact == nil then return tostring(value) end
  if u64.lt(exact, SMALL) then return ("%d"):format(u64.tonumber(exact)) end
  if u64.le(exact, 2 ^ 53) then
    return ("%s (%.0f)"):format(u64.hex(exact), u64.tonumber(exact))
  end
  local negative = type(value) == "number" and value < 0
  return u64.hex(exact) .. (negative and (" (%.0f)"):format(value) or "")
end

-- Keys in an order: whole numbers, then names, then the others.
local function keys_of(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  local rank = { number = 1, string = 2 }
  table.sort(keys, function(a, b)
    local one, other = rank[type(a)] or 3, rank[type(b)] or 3
    if one ~= other then return one < other end
    if one == 3 then return tostring(a) < tostring(b) end
    return a < b
  end)
  return keys
end

local text

local function key_text(key)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" then return key end
  return "[" .. text(key, DEPTH) .. "]"
end

local function parts_of(value, depth)
  local parts, count = {}, #value
  for _, key in ipairs(keys_of(value)) do
    local listed = type(key) == "number" and key % 1 == 0 and key >= 1 and key <= count
    if #parts == MOST then
      parts[#parts + 1] = "..."
      return parts
    end
    parts[#parts + 1] = (listed and "" or key_text(key) .. " = ") .. text(value[key], depth + 1)
  end
  return parts
end

local function table_text(value, depth)
  if next(value) == nil then return "{}" end
  if depth >= DEPTH then return "{...}" end
  local parts = parts_of(value, depth)
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line <= WIDTH and not line:find "\n" then return line end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. " }"
end

function text(value, depth)
  local kind = type(value)
  if kind == "number" or kind == "cdata" then return number(value) end
  if kind == "string" then return ("%q"):format(value):gsub("\\\n", "\\n") .. "" end
  local meta = kind == "table" and getmetatable(value)
  if kind ~= "table" or meta then
    local shown = tostring(value)
    return depth > 0 and shown:match "^[^\n]*" or shown
  end
  return table_text(value, depth)
end

--- The text of a value. A string is itself.
function M.text(value)
  return type(value) == "string" and value or (text(value, 0))
end

--- The values that a function has returned, a line each; nil where there were none.
function M.values(count, list)
  local lines = {}
  for i = 1, count do lines[i] = M.text(list[i]) end
  return count > 0 and table.concat(lines, "\n") or nil
end

return M
