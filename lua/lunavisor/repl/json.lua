-- SPDX-License-Identifier: MIT
-- JSON in one line, and back (RFC 8259). null is nil.

local encode = require("lunavisor.program.json").encode

local M = {}

local DEEPEST = 100

--- A value as one line.
M.line = encode

-- ---- Reading ----

local function refuse(at, expected)
  error(("JSON: %s expected at byte %d"):format(expected, at), 0)
end

local function utf8_of(code)
  if code < 0x80 then return string.char(code) end
  local tails = code < 0x800 and 1 or code < 0x10000 and 2 or 3
  local text = ""
  for _ = 1, tails do
    text, code = string.char(0x80 + code % 0x40) .. text, math.floor(code / 0x40)
  end
  return string.char(0x100 - 2 ^ (7 - tails) + code) .. text
end

local CHARACTERS = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["/"] = "/",
  ["\\"] = "\\" }

-- The character of \uXXXX at `at`, which may be the first of two halves; and where it ends.
local function unicode(text, at)
  local digits = text:match("^%x%x%x%x", at)
  if not digits then refuse(at, "four digits") end
  local code = tonumber(digits, 16)
  local low = code >= 0xd800 and code < 0xdc00 and text:match("^\\u([dD][c-fC-F]%x%x)", at + 4)
  if low then
    return utf8_of(0x10000 + (code - 0xd800) * 0x400 + tonumber(low, 16) - 0xdc00), at + 10
  end
  return utf8_of(code), at + 4
end

local function string_at(text, at)
  local parts = {}
  while true do
    local from, to, plain = text:find('^([^"\\%c]*)', at)
    parts[#parts + 1], at = plain, to and to + 1 or from
    local char = text:sub(at, at)
    if char == '"' then return table.concat(parts), at + 1 end
    if char ~= "\\" then refuse(at, "the end of a string") end
    local escaped = text:sub(at + 1, at + 1)
    if escaped == "u" then
      parts[#parts + 1], at = unicode(text, at + 2)
    else
      parts[#parts + 1], at = CHARACTERS[escaped] or refuse(at + 1, "an escape"), at + 2
    end
  end
end

local WORDS = { ["true"] = true, ["false"] = false }
local value_at
local whole_number -- what stands for an integer of more digits than a double has

local function space(text, at) return text:find("[^ \t\r\n]", at) or #text + 1 end

-- Elements with commas between them, up to `last`; add(at) takes one and gives where it ends.
local function elements(text, at, last, add)
  at = space(text, at)
  if text:sub(at, at) == last then return at + 1 end
  while true do
    at = space(text, add(at))
    local char = text:sub(at, at)
    if char == last then return at + 1 end
    if char ~= "," then refuse(at, "a comma or " .. last) end
    at = space(text, at + 1)
  end
end

local function list_at(text, at, depth)
  local list, count = {}, 0
  at = elements(text, at, "]", function(from)
    count = count + 1
    local to
    list[count], to = value_at(text, from, depth)
    return to
  end)
  return list, at
end

local function object_at(text, at, depth)
  local object = {}
  at = elements(text, at, "}", function(from)
    if text:sub(from, from) ~= '"' then refuse(from, "a name in quotes") end
    local name, to = string_at(text, from + 1)
    to = space(text, to)
    if text:sub(to, to) ~= ":" then refuse(to, "a colon") end
    object[name], to = value_at(text, to + 1, depth)
    return to
  end)
  return object, at
end

function value_at(text, at, depth)
  if depth > DEEPEST then refuse(at, "less depth") end
  at = space(text, at)
  local char = text:sub(at, at)
  if char == '"' then return string_at(text, at + 1) end
  if char == "{" then return object_at(text, at + 1, depth + 1) end
  if char == "[" then return list_at(text, at + 1, depth + 1) end
  local word = text:match("^%a+", at)
  if word == "null" then return nil, at + 4 end
  if WORDS[word] ~= nil then return WORDS[word], at + #word end
  local digits = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local number = digits and tonumber(digits)
  if whole_number and digits and #digits > 15 and digits:find "^-?%d+$" then
    number = whole_number(digits)
  end
  if not number then refuse(at, "a value") end
  return number, at + #digits
end

--- The value of a text; an error where it is not JSON. whole(digits) gives what stands for an
--- integer that a double may not have; without it, that is a number.
function M.decode(text, whole)
  whole_number = whole
  local value, at = value_at(text, 1, 0)
  at = space(text, at)
  if at <= #text then refuse(at, "the end") end
  return value
end

return M
