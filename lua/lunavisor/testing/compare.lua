-- SPDX-License-Identifier: MIT
-- What differs, as text: values, registers, bytes by the lines of a hexdump, texts by their lines.

local u64 = require "lunavisor.text.u64"

local M = {}

--- A value as messages show it.
function M.value(value)
  if type(value) == "string" then return ("%q"):format(value) end
  return u64.exact(value) ~= nil and u64.hex(value) or tostring(value)
end

--- Whether two numbers or u64s, or other values, are the same.
function M.same(one, other)
  local a, b = u64.exact(one), u64.exact(other)
  if a ~= nil and b ~= nil then return a == b end
  return one == other
end

local function hex_line(data, first, last)
  local list = {}
  for i = first, last do
    local byte = data:byte(i)
    list[#list + 1] = byte and ("%02x"):format(byte) or "--"
  end
  return table.concat(list, " ")
end

local MOST = 8 -- lines

--- The lines of 16 bytes in which the bytes at an address are not those expected; nil where none.
function M.bytes(gpa, found, expected)
  if found == expected then return nil end
  local lines, more = {}, 0
  local start = gpa - gpa % 16
  for at = start, gpa + math.max(#found, #expected) - 1, 16 do
    local first, last = math.max(at - gpa + 1, 1), at - gpa + 16
    last = math.min(last, math.max(#found, #expected))
    if found:sub(first, last) ~= expected:sub(first, last) then
      if #lines < 2 * MOST then
        local place = ("  0x%x: "):format(gpa + first - 1)
        lines[#lines + 1] = place .. hex_line(found, first, last)
        lines[#lines + 1] = ("%" .. #place .. "s"):format "not " .. hex_line(expected, first, last)
      else
        more = more + 1
      end
    end
  end
  if more > 0 then lines[#lines + 1] = ("  and %d lines more"):format(more) end
  return table.concat(lines, "\n")
end

local function split(text)
  local lines = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  return lines
end

--- The first line in which two texts differ: 'line 3 is "x", not "y"'; nil where they are the same.
function M.text(found, expected)
  if found == expected then return nil end
  local mine, theirs = split(found), split(expected)
  for i = 1, math.max(#mine, #theirs) do
    if mine[i] ~= theirs[i] then
      if mine[i] == nil then return ("line %d, %q, is missing"):format(i, theirs[i]) end
      if theirs[i] == nil then return ("line %d, %q, is too many"):format(i, mine[i]) end
      return ("line %d is %q, not %q"):format(i, mine[i], theirs[i])
    end
  end
  return nil
end

return M
