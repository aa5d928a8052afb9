-- SPDX-License-Identifier: MIT
-- What the specs of luna sweep share: a directory with scripts, the program in it, and the table of
-- results read back.

local files = require "spec.support.files"
local helper = require "spec.support.helper"

local M = {}

--- Whether GNU parallel is here; the reason for leaving a test out.
M.parallel = select(2, helper.sh "parallel --version 2>/dev/null | grep -q '^GNU parallel'") == 0
M.reason = "GNU parallel is not installed"

local Place = {}
Place.__index = Place

-- What is kept of its arguments is what came through all shells.
local UNIT = [[
local given = require("lunavisor").arguments
print "some text"
local file = assert(io.open("ran", "a"))
file:write(tostring(given.n), "\n")
file:close()
if given.n == 3 and io.open "bad" then error "no threes" end
if given.n == 5 and io.open "bad" then os.exit(7) end
return { double = (tonumber(given.n) or 0) * 2, word = given.word, list = { 1, 2 },
  random = math.random(1000000), first = ... }
]]

-- The last units take so long that there are some left, whenever the machine comes to cut it off.
local SLOW = [[
local given = require("lunavisor").arguments
os.execute "sleep 0.25"
if given.n > 8 and not io.open "quick" then os.execute "sleep 5" end
return { n = given.n }
]]

--- A directory, removed after the test, with the scripts unit.lua and slow.lua.
function M.place()
  local self = setmetatable({ path = helper.sh "mktemp -d" }, Place)
  helper.keep { close = function() helper.sh("rm -rf " .. self.path) end }
  self:write("unit.lua", UNIT)
  self:write("slow.lua", SLOW)
  return self
end

function Place.write(self, name, text) files.write(self.path .. "/" .. name, text) end

function Place.read(self, name)
  local file = io.open(self.path .. "/" .. name, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

--- Runs words of the shell there, in which $luna is the program: what they print, their status.
function Place.sh(self, words)
  return helper.sh(("luna=$PWD/scripts/luna; cd %s; export LUNA_LUA=%s; %s"):format(self.path,
    helper.engine, words))
end

--- Runs luna sweep with the words; it must end with the status, and say the text.
function Place.sweep(self, status, said, words, before)
  local output, found = self:sh(("%s $luna sweep %s"):format(before or "", words))
  if found ~= status then
    error(("it ended with %d and not %d:\n%s"):format(found, status, output), 2)
  end
  helper.contains(said, output)
  return output
end

--- The records of a text of comma-separated values (RFC 4180).
function M.records(text)
  local records, record, at = {}, {}, 1
  while at <= #text do
    local value, behind
    if text:sub(at, at) == '"' then
      local parts = {}
      repeat
        value, behind = text:match('^"([^"]*)"()', at)
        parts[#parts + 1], at = assert(value, "an open quote"), behind
      until text:sub(at, at) ~= '"'
      value = table.concat(parts, '"')
    else
      value, at = text:match('^([^,"\r\n]*)()', at)
    end
    record[#record + 1] = value
    if text:sub(at, at) == "," then
      at = at + 1
      if at > #text then error "a comma at the end" end
    else
      if text:sub(at, at + 1) ~= "\r\n" then error("no end of a record at byte " .. at) end
      records[#records + 1], record, at = record, {}, at + 2
    end
  end
  return records
end

--- The rows of the table of results, each by the names of its columns.
function Place.rows(self, name)
  local records = M.records(assert(self:read(name or "unit.sweep/results.csv")))
  local rows, head = {}, records[1]
  for i = 2, #records do
    assert(#records[i] == #head, "a row of another length")
    rows[i - 1] = {}
    for column, value in ipairs(records[i]) do rows[i - 1][head[column]] = value end
  end
  return rows, head
end

--- What of a column is in the rows, with spaces between them.
function Place.column(self, column, name)
  local list = {}
  for i, row in ipairs((self:rows(name))) do list[i] = row[column] end
  return table.concat(list, " ")
end

return M
