-- SPDX-License-Identifier: MIT
-- A sweep as it was asked for: the script, its parameters, and which unit has which values.
-- Units count from 1; the last parameter changes fastest.

local values = require "lunavisor.sweep.values"

local M = {}

local Plan = {}
Plan.__index = Plan

-- Names that columns of the results have.
local TAKEN = { unit = true, status = true, seconds = true, error = true, host = true }

local function read_file(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read "*a"
  file:close()
  if not text then return nil, path .. ": it cannot be read" end
  return text
end

M.read_file = read_file

--- A number that another text hardly has. The same on both engines.
function M.sum(text)
  local sum = #text
  for i = 1, #text do sum = (sum * 257 + text:byte(i)) % 17592186044399 end
  return ("%.0f"):format(sum)
end

local function seeds_of(text)
  local list, problem = values.list(text)
  if not list then return nil, problem end
  for _, seed in ipairs(list) do
    local number = tonumber(seed)
    if not number or number % 1 ~= 0 or math.abs(number) >= 2 ^ 53 then
      return nil, "whole numbers expected, got " .. seed
    end
  end
  return list
end

local function add(self, name, list)
  if TAKEN[name] then return nil, ("%s is the name of a column of the results"):format(name) end
  for _, one in ipairs(self.parameters) do
    if one.name == name then return nil, name .. " is there twice" end
  end
  self.parameters[#self.parameters + 1] = { name = name, values = list }
  self.count = self.count * #list
  if self.count > values.MOST then
    return nil, ("more than %d units"):format(values.MOST)
  end
  return true
end

--- A plan. script: its path; set: a list of "name=values"; seeds: values; rest: the script's
--- arguments; accel. nil, message.
function M.new(script, set, seeds, rest, accel)
  local self = setmetatable({ script = script, parameters = {}, count = 1, rest = rest or {},
    accel = accel }, Plan)
  local problem
  self.text, problem = read_file(script)
  if not self.text then return nil, problem end
  for _, one in ipairs(set) do
    local name, list = values.parse(one)
    if not name then return nil, "--set: " .. list end
    if name == "seed" then return nil, "--set: seed: --seeds says them" end
    local ok, wrong = add(self, name, list)
    if not ok then return nil, "--set: " .. wrong end
  end
  if seeds then
    local list, wrong = seeds_of(seeds)
    if not list then return nil, "--seeds: " .. wrong end
    local ok
    ok, wrong = add(self, "seed", list)
    if not ok then return nil, "--seeds: " .. wrong end
  end
  return self
end

--- The values of a unit: texts, in the order of the parameters.
function Plan.values(self, unit)
  local list, left = {}, unit - 1
  for i = #self.parameters, 1, -1 do
    local all = self.parameters[i].values
    list[i] = all[left % #all + 1]
    left = math.floor(left / #all)
  end
  return list
end

--- The values of a unit as the script has them: numbers where they are some, by name.
function Plan.arguments(self, unit)
  local named = {}
  for i, value in ipairs(self:values(unit)) do
    named[self.parameters[i].name] = tonumber(value) or value
  end
  return named
end

--- The values of a unit in words.
function Plan.words(self, unit)
  local words = {}
  for i, value in ipairs(self:values(unit)) do
    words[i] = self.parameters[i].name .. "=" .. value
  end
  return table.concat(words, ", ")
end

-- ---- As data ----

--- What says which sweep this is.
function Plan.data(self)
  return { script = self.script, parameters = self.parameters, arguments = self.rest,
    accel = self.accel }
end

local function list_text(list)
  if #list <= 6 then return table.concat(list, ",") end
  return ("%s,%s,...,%s (%d)"):format(list[1], list[2], list[#list], #list)
end

local function same(a, b)
  return table.concat(a, "\0") == table.concat(b, "\0") and #a == #b
end

local function by_name(parameters)
  local found = {}
  for _, one in ipairs(parameters) do found[one.name] = one.values end
  return found
end

local function names_of(parameters)
  local names = {}
  for i, one in ipairs(parameters) do names[i] = one.name end
  return names
end

local function parameter_differences(list, was, is)
  local before, now = by_name(was), by_name(is)
  for _, one in ipairs(was) do
    local new = now[one.name]
    if not new then
      list[#list + 1] = one.name .. " is gone"
    elseif not same(one.values, new) then
      list[#list + 1] = ("%s was %s and is %s"):format(one.name, list_text(one.values),
        list_text(new))
    end
  end
  for _, one in ipairs(is) do
    if not before[one.name] then list[#list + 1] = one.name .. " is new" end
  end
  if #list == 0 and not same(names_of(was), names_of(is)) then
    list[#list + 1] = "the order of the parameters has changed"
  end
end

--- What of another plan's data and script is not as here: a list of texts.
function Plan.differences(self, data, text)
  local list = {}
  parameter_differences(list, data.parameters or {}, self.parameters)
  if not same(data.arguments or {}, self.rest) then
    list[#list + 1] = "the script's arguments have changed"
  end
  if data.accel ~= self.accel then
    list[#list + 1] = ("--accel was %s and is %s"):format(data.accel or "not said",
      self.accel or "not said")
  end
  if text ~= self.text then list[#list + 1] = "the script has changed" end
  return list
end

-- ---- As words for a shell ----

local function quote(text)
  if text:find "^[%w_./=,:+-]+$" then return text end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

M.quote = quote

--- What luna run would get for a unit.
function Plan.shell(self, unit)
  local words = {}
  if self.accel then words[1] = "--accel " .. self.accel end
  for i, value in ipairs(self:values(unit)) do
    local name = self.parameters[i].name
    words[#words + 1] = name == "seed" and "--seed " .. value
      or "--set " .. quote(name .. "=" .. value)
  end
  words[#words + 1] = quote(self.script)
  for _, one in ipairs(self.rest) do words[#words + 1] = quote(one) end
  return table.concat(words, " ")
end

-- Without a character that a shell, or parallel, has a meaning for.
local function encode(text)
  return (text:gsub("[^%w_./-]", function(char) return ("%%%02x"):format(char:byte()) end))
end

local function decode(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

--- A unit as one word, whatever its values are; `host`: its line says where it ran.
function Plan.word(self, unit, host)
  local parts = { "unit=" .. ("%d"):format(unit), "script=" .. encode(self.script),
    "sum=" .. M.sum(self.text) }
  if self.accel then parts[#parts + 1] = "accel=" .. self.accel end
  if host then parts[#parts + 1] = "host=1" end
  for i, value in ipairs(self:values(unit)) do
    local name = self.parameters[i].name
    parts[#parts + 1] = name == "seed" and "seed=" .. value or "set." .. name .. "="
      .. encode(value)
  end
  for _, one in ipairs(self.rest) do parts[#parts + 1] = "argument=" .. encode(one) end
  return table.concat(parts, ",")
end

--- What such a word says: { unit, script, sum, accel, host, seed, set, rest }. nil where it says
--- nothing.
function M.read_word(word)
  local unit = { set = {}, rest = {} }
  for key, text in word:gmatch "([^,=]+)=([^,]*)" do
    local name, value = key:match "^set%.(.*)$", decode(text)
    if name then
      unit.set[#unit.set + 1] = name .. "=" .. value
    elseif key == "argument" then
      unit.rest[#unit.rest + 1] = value
    else
      unit[key] = value
    end
  end
  unit.unit = tonumber(unit.unit)
  return unit.unit and unit.script and unit.sum and unit or nil
end

return M
