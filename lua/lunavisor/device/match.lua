-- SPDX-License-Identifier: MIT
-- Commands by pattern: match = { ["r1100lll"] = function(dev, f) ... end }. 0 and 1 must fit, equal
-- letters are a field, - is anything; the most exact pattern that fits is called.

local u64 = require "lunavisor.text.u64"

local floor = math.floor

local M = {}

-- A pattern of so many bits, the highest first: { fixed = how many 0 and 1, mask, value, fields = {
-- name = list of bit numbers, the highest first } }.
local function parse(blame, path, text, count)
  local pattern = { text = text, fixed = 0, mask = 0, value = 0, fields = {} }
  local digits = text:gsub("[ _]", "")
  if #digits ~= count then
    blame(path, ("match: %q has %d bits, and the register %d"):format(text, #digits, count))
  end
  for i = 1, count do
    local c, bit = digits:sub(i, i), count - i
    if c == "0" or c == "1" then
      pattern.fixed = pattern.fixed + 1
      pattern.mask = pattern.mask + 2 ^ bit
      pattern.value = pattern.value + tonumber(c) * 2 ^ bit
    elseif c:find "%a" then
      pattern.fields[c] = pattern.fields[c] or {}
      table.insert(pattern.fields[c], bit)
    elseif c ~= "-" then
      blame(path, ("match: %q: 0, 1, letters and - expected"):format(text))
    end
  end
  pattern.mask, pattern.value = u64(pattern.mask), u64(pattern.value)
  return pattern
end

-- Whether there is a value that both fit.
local function meet(one, other)
  local both = u64.band(one.mask, other.mask)
  return u64.band(one.value, both) == u64.band(other.value, both)
end

local function check_ambiguous(blame, path, list)
  for i, pattern in ipairs(list) do
    for j = i + 1, #list do
      local other = list[j]
      if other.fixed == pattern.fixed and meet(pattern, other) then
        blame(path, ("match: %q and %q fit the same values, and none is more exact"):format(
          pattern.text, other.text))
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
