-- SPDX-License-Identifier: MIT
-- Commands by pattern: match = { ["r1100lll"] = function(dev, f) ... end }. 0 and 1 must fit, equal
-- letters are a field, - is anything; the most exact pattern that fits is called.

local u64 = require "lunavisor.text.u64"

local floor = math.floor

local M = {}

-- A pattern of so many bits, the highest first: { text, digits without spaces, fixed = how many 0
-- and 1, mask, value, fields = { name = list of bit numbers, the highest first } }.
local function parse(blame, path, text, count)
  local pattern = { text = text, fields = {} }
  local digits = text:gsub("[ _]", "")
  if #digits ~= count then
    blame(path, ("match: %q has %d bits, and the register %d"):format(text, #digits, count))
  end
  local wrong = digits:find "[^01%a-]"
  if wrong then blame(path, ("match: %q: 0, 1, letters and - expected"):format(text)) end
  local kinds, fixed = digits:gsub("[01]", "1")
  pattern.digits, pattern.fixed = digits, fixed
  pattern.mask = tonumber((kinds:gsub("[^1]", "0")), 2)
  pattern.value = tonumber((digits:gsub("[^01]", "0")), 2)
  for at, letter in digits:gmatch "()(%a)" do
    pattern.fields[letter] = pattern.fields[letter] or {}
    table.insert(pattern.fields[letter], count - at)
  end
  pattern.mask, pattern.value = u64(pattern.mask), u64(pattern.value)
  return pattern
end

-- Whether there is a value that both fit.
local function meet(one, other)
  local both = u64.band(one.mask, other.mask)
  return u64.band(one.value, both) == u64.band(other.value, both)
end

local function ambiguous(blame, path, one, other)
  blame(path, ("match: %q and %q fit the same values, and none is more exact"):format(one.text,
    other.text))
end

-- Two that say each bit meet where they are the same.
local function check_ambiguous(blame, path, list)
  local whole = {}
  for i, pattern in ipairs(list) do
    if pattern.fixed == #pattern.digits then
      local other = whole[pattern.digits]
      if other then ambiguous(blame, path, other, pattern) end
      whole[pattern.digits] = pattern
    else
      for j = i + 1, #list do
        local other = list[j]
        if other.fixed ~= pattern.fixed then break end -- they are in this order
        if meet(pattern, other) then ambiguous(blame, path, pattern, other) end
      end
    end
  end
end

local function parse_all(blame, path, specs, count)
  local list = {}
  if type(specs) ~= "table" then blame(path, "match: a table of functions by pattern expected") end
  for text, fn in pairs(specs) do
    if type(text) ~= "string" or type(fn) ~= "function" then
      blame(path, ("match: a function for each pattern expected, got %s for %s"):format(type(fn),
        tostring(text)))
    end
    local pattern = parse(blame, path, text, count)
    pattern.fn = fn
    list[#list + 1] = pattern
  end
  table.sort(list, function(a, b)
    if a.fixed ~= b.fixed then return a.fixed > b.fixed end
    return a.text < b.text
  end)
  check_ambiguous(blame, path, list)
  return list
end

local function fields_of(pattern, value)
  local f = { value = value }
  for name, places in pairs(pattern.fields) do
    local sum = 0
    for _, bit in ipairs(places) do sum = sum * 2 + floor(value / 2 ^ bit) % 2 end
    f[name] = floor(sum)
  end
  return f
end

--- A write hook that calls the function of the pattern that fits what the guest has written.
function M.new(blame, path, specs, register)
  if register.width > 4 then blame(path, "match: a register of up to 4 bytes expected") end
  local list = parse_all(blame, path, specs, 8 * register.width)
  return function(d, _, _, written)
    local exact = u64.exact(written)
    for i = 1, #list do
      local pattern = list[i]
      if u64.band(exact, pattern.mask) == pattern.value then
        return pattern.fn(d, fields_of(pattern, written))
      end
    end
    d:log(("%s: no pattern fits the command %s"):format(register.name, u64.hex(written)))
  end
end

return M
