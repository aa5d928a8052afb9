-- SPDX-License-Identifier: MIT
-- What CPUID answers in the guest: cpu.cpuid[1].ecx, cpu.cpuid(7, 1).eax; changed before the first
-- run by cpu.cpuid[leaf] = { ecx = 0 } or cpu.cpuid:filter(fn).

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"

local M = {}

local registers = { eax = true, ebx = true, ecx = true, edx = true }
local fields = { eax = true, ebx = true, ecx = true, edx = true, leaf = true, subleaf = true }

local function check_number(what, value, level)
  value = check.plain(value)
  if type(value) ~= "number" or value % 1 ~= 0 or value < 0 or value >= 2 ^ 32 then
    error(("%s: a whole number from 0 to 0xffffffff expected, got %s")
      :format(what, tostring(value)), level + 1)
  end
  return math.floor(value)
end

-- A plain copy of an answer whose fields are right.
local function check_answer(answer, level)
  if type(answer) ~= "table" then
    error(("cpuid: a table with eax, ebx, ecx and edx expected, got %s"):format(type(answer)),
      level + 1)
  end
  for name in pairs(answer) do
    if not fields[name] then
      error(("cpuid: unknown field '%s'; eax, ebx, ecx, edx, leaf and subleaf are known")
        :format(tostring(name)), level + 1)
    end
  end
  local copy = {}
  for name in pairs(fields) do -- also what is behind a metatable
    local value = answer[name]
    if value ~= nil then copy[name] = check_number("cpuid: " .. name, value, level + 1) end
  end
  return copy
end

local function find(list, leaf, subleaf)
  for place, answer in ipairs(list) do
    if answer.leaf == leaf and (answer.subleaf or subleaf) == subleaf then return answer, place end
  end
end

-- ---- One answer ----

local Answer = class.class("CPUID answer", "answer")
class.announce(Answer, {}, "eax ebx ecx edx leaf subleaf")

function Answer.__index(self, name)
  local value = rawget(self, "values")[name]
  if value == nil and not fields[name] and not class.is_probe(name) then
    class.missing(Answer, name, nil, 2)
  end
  return value
end

-- Writes the answer's registers into the table of the vCPU; false in place of `change` drops it.
local function change(cpu, leaf, subleaf, values, level)
  if not cpu[1] then error("attempt to use a closed vcpu", level + 1) end
  local list = raw.cpuid(cpu)
  local answer, place = find(list, leaf, subleaf)
  if not values then
    if place then table.remove(list, place) end
  else
    if not answer then
      answer = { leaf = leaf, subleaf = subleaf > 0 and subleaf or nil,
        eax = 0, ebx = 0, ecx = 0, edx = 0 }
      list[#list + 1] = answer
    end
    for name in pairs(registers) do answer[name] = values[name] or answer[name] end
  end
  local ok, message = raw.set_cpuid(cpu, list)
  if not ok then error(message, level + 1) end
end

function Answer.__newindex(self, name, value)
  local values = rawget(self, "values")
  if not registers[name] then class.missing(Answer, name, " that can be set", 2) end
  value = check_number("cpuid: " .. name, value, 2)
  change(rawget(self, "cpu"), values.leaf, values.subleaf or 0, { [name] = value }, 2)
  values[name] = value
end

function Answer.__tostring(self)
  local v = rawget(self, "values")
  return ("cpuid 0x%x%s: eax %08x ebx %08x ecx %08x edx %08x"):format(v.leaf,
    v.subleaf and ("." .. v.subleaf) or "", v.eax, v.ebx, v.ecx, v.edx)
end

-- ---- The table ----

local Table = class.class("CPUID table", "cpuid")
local mine = class.checker(Table)
local open = class.opener(class.class "vcpu")
local methods = {}

local function lookup(self, leaf, subleaf, level)
  local cpu = rawget(self, "cpu")
  if not cpu[1] then error("attempt to use a closed vcpu", level + 1) end
  leaf = check_number("cpuid: leaf", leaf, level + 1)
  subleaf = check_number("cpuid: subleaf", subleaf, level + 1)
  local answer = find(raw.cpuid(cpu), leaf, subleaf)
  return answer and setmetatable({ cpu = cpu, values = answer }, Answer)
end

--- Calls fn(answer) for each answer, a table with leaf, subleaf (where the leaf has some), eax,
--- ebx, ecx and edx. What fn changes in it counts; if it returns false, the answer is left out.
function M.filter(cpu, fn)
  local kept = {}
  for _, answer in ipairs(raw.cpuid(cpu)) do
    local leaf, subleaf = answer.leaf, answer.subleaf
    if fn(answer) ~= false then
      answer.leaf, answer.subleaf = leaf, subleaf
      local copy = check_answer(answer, 3)
      kept[#kept + 1] = copy
    end
  end
  return raw.set_cpuid(cpu, kept)
end

-- A copy of a list of answers with every register there; blames the caller `level` calls above.
local function complete(list, level)
  if type(list) ~= "table" then
    error(("cpuid: a list of answers expected, got %s"):format(type(list)), level + 1)
  end
  local whole = {}
  for i, given in ipairs(list) do
    local answer = check_answer(given, level + 1)
    whole[i] = { leaf = check_number("cpuid: leaf", answer.leaf, level + 1),
      subleaf = answer.subleaf, eax = answer.eax or 0, ebx = answer.ebx or 0,
      ecx = answer.ecx or 0, edx = answer.edx or 0 }
  end
  return whole
end

--- cpu.cpuid = list: the whole table, as cpu.cpuid:list() gives it.
function M.assign(cpu, list)
  return check.result(raw.set_cpuid(cpu, complete(list, 2)))
end

--- The table of a new vCPU: a list, or a function for filter. true, or nil, message, code.
function M.begin(cpu, given)
  if type(given) == "table" and not (getmetatable(given) or {}).__call then
    return raw.set_cpuid(cpu, complete(given, 3))
  end
  return M.filter(cpu, given)
end

-- The vCPU of a method's table, which is open.
local function cpu_of(self)
  mine(self, 2)
  local cpu = rawget(self, "cpu")
  open(cpu, 2)
  return cpu
end

function methods.filter(self, fn)
  local cpu = cpu_of(self)
  check.callable("cpuid:filter", fn)
  return check.result(M.filter(cpu, fn))
end

--- All answers, in their order, as tables.
function methods.list(self)
  return raw.cpuid(cpu_of(self))
end

--- Sets the registers of one answer; those that `values` does not name stay, or are 0 in a new one.
--- nil for `values` drops the answer.
function methods.set(self, leaf, subleaf, values)
  local cpu = cpu_of(self)
  leaf = check_number("cpuid:set: leaf", leaf, 2)
  subleaf = check_number("cpuid:set: subleaf", subleaf, 2)
  if values ~= nil then values = check_answer(values, 2) end
  change(cpu, leaf, subleaf, values, 2)
end

class.announce(Table, methods)

function Table.__index(self, key)
  if type(key) == "string" then
    if methods[key] then return methods[key] end
    if class.is_probe(key) then return nil end
    class.missing(Table, key, nil, 2)
  end
  local answer = lookup(self, key, 0, 2)
  return answer -- not a tail call: the checks count on this frame
end

function Table.__call(self, leaf, subleaf)
  local answer = lookup(self, leaf, subleaf or 0, 2)
  return answer
end

function Table.__newindex(self, leaf, values)
  leaf = check_number("cpuid: leaf", leaf, 2)
  if values ~= nil then values = check_answer(values, 2) end
  change(rawget(self, "cpu"), leaf, 0, values, 2)
end

Table.__tostring = check.text("cpuid", function(self)
  local lines = {}
  for i, answer in ipairs(raw.cpuid(rawget(self, "cpu"))) do
    lines[i] = Answer.__tostring { values = answer }
  end
  return table.concat(lines, "\n")
end)

--- The table of the vCPU.
function M.table(cpu)
  return setmetatable({ cpu = cpu }, Table)
end

return M
