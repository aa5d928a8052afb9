-- SPDX-License-Identifier: MIT
-- Plain values (nil, booleans, numbers, u64s, strings, and tables of them) as one line of text, the
-- same on both engines, and back. Reading it runs nothing.

local point = require "lunavisor.text.point"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Writing ----

local function quote(text)
  return '"' .. text:gsub('[%c"\\\127-\255]', function(c)
    return ("\\%03d"):format(c:byte())
  end) .. '"'
end

local function number_text(value)
  if value ~= value then return "nan" end
  if value == math.huge or value == -math.huge then return value > 0 and "inf" or "-inf" end
  if value % 1 ~= 0 then return point.number("%.17g", value) end
  if value > -2 ^ 53 and value < 2 ^ 53 then return ("%.0f"):format(value) end
  return math.type and math.type(value) == "integer" and u64.hex(value)
    or point.number("%.17g", value)
end

local write

local function key_text(key)
  if type(key) == "string" then
    return key:find "^[%a_][%w_]*$" and key or "[" .. quote(key) .. "]"
  end
  return type(key) == "number" and "[" .. number_text(key) .. "]" or nil
end

local function table_text(value, depth)
  local parts, strings = {}, {}
  for i, one in ipairs(value) do
    parts[i] = write(one, depth)
    if not parts[i] then return nil end
  end
  local numbers = {}
  for key in pairs(value) do
    if type(key) == "string" then
      strings[key] = true
    elseif type(key) ~= "number" then
      return nil
    elseif not (key >= 1 and key <= #parts and key % 1 == 0) then
      numbers[#numbers + 1] = key
    end
  end
  table.sort(numbers)
  for _, key in ipairs(sorted(strings)) do numbers[#numbers + 1] = key end
  for _, key in ipairs(numbers) do
    local text = write(value[key], depth)
    if not text then return nil end
    parts[#parts + 1] = key_text(key) .. "=" .. text
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local writers = {
  ["nil"] = function() return "nil" end,
  boolean = tostring,
  number = number_text,
  string = quote,
  table = function(value, depth)
    if depth > 32 or getmetatable(value) ~= nil then return nil end
    return table_text(value, depth + 1)
  end,
}

function write(value, depth)
  local writer = writers[type(value)]
  if writer then return writer(value, depth) end
  return u64.exact(value) ~= nil and u64.hex(value) or nil
end

--- A plain value as text; nil where it is none.
function M.write(value)
  return write(value, 0)
end

-- ---- Reading ----

local words = { ["nil"] = { nil }, ["true"] = { true }, ["false"] = { false },
  nan = { 0 / 0 }, inf = { math.huge } }

local read

-- The key before "=", and where its value begins; nil where the entry has none.
local function read_key(text, at)
  local name, next_at = text:match("^([%a_][%w_]*)=()", at)
  if name then return name, next_at end
  if text:sub(at, at) ~= "[" then return nil, at end
  local ok, key, behind = read(text, at + 1)
  if not ok or key == nil or key ~= key or text:sub(behind, behind + 1) ~= "]=" then
    return false, at
  end
  return key, behind + 2
end

local function read_table(text, at)
  local made, count = {}, 0
  at = at + 1
  while text:sub(at, at) ~= "}" do
    local key, begin = read_key(text, at)
    if key == false then return false end
    local ok, value, behind = read(text, begin)
    if not ok then return false end
    if key == nil then
      count = count + 1
      key = count
    end
    made[key] = value
    at = behind
    if text:sub(at, at) == "," then
      at = at + 1
    elseif text:sub(at, at) ~= "}" then
      return false
    end
  end
  return true, made, at + 1
end

-- Whether there is a value at `at`, the value, and where it ends.
function read(text, at)
  local c = text:sub(at, at)
  if c == "{" then return read_table(text, at) end
  if c == '"' then
    local body, behind = text:match('^"([^"]*)"()', at)
    if not body then return false end
    return true, (body:gsub("\\(%d%d%d)", function(code)
      return string.char(tonumber(code) % 256)
    end)), behind
  end
  local word, behind = text:match("^([%w.+-]+)()", at)
  if not word then return false end
  if words[word] then return true, words[word][1], behind end
  if word == "-inf" then return true, -math.huge, behind end
  if word:find "^0x%x+$" and #word <= 18 then return true, u64(word), behind end
  local number = tonumber(word)
  if number and number % 1 == 0 and number > -2 ^ 53 and number < 2 ^ 53 then
    number = math.floor(number)
  end
  return number ~= nil, number, behind
end

--- Whether a text is a plain value, and the value.
function M.read(text)
  local ok, value, behind = read(text, 1)
  if not ok or behind ~= #text + 1 then return false end
  return true, value
end

return M
