-- SPDX-License-Identifier: MIT
-- Registers by their SDM names: cpu.rax, cpu.cr3, cpu.cs.base; 64-bit ones are u64.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local M = {}

local ids = {}      -- "rax" -> number
local groups = {}   -- "cs" -> { base = number, ... }
local order = {}    -- names of the single registers

do
  local id = 0
  while raw.register_name(id) do
    local name = raw.register_name(id)
    local group, field = name:match "^(%w+)%.(%w+)$"
    if group then
      groups[group] = groups[group] or {}
      groups[group][field] = id
    else
      ids[name] = id
      order[#order + 1] = name
    end
    id = id + 1
  end
end

--- The number of a single register, for raw.get and raw.set.
function M.id(name)
  return ids[name]
end

-- Errors blame the script's line: methods of the library read registers, too.
local function read(cpu, id)
  if not cpu[1] then error("attempt to use a closed vcpu", class.outside()) end
  local value, message = raw.get(cpu, id)
  if value == nil then error(message, class.outside()) end
  return value
end

local function write(cpu, id, value)
  if not cpu[1] then error("attempt to use a closed vcpu", class.outside()) end
  local exact = u64.exact(value)
  if exact == nil then
    error(("register %s: an integer expected, got %s (write large ones as u64 \"0x...\")")
      :format(raw.register_name(id), tostring(value)), class.outside())
  end
  local ok, message = raw.set(cpu, id, exact)
  if not ok then error(message, class.outside()) end
end

-- A segment or table register: its fields are read from and written to the vCPU.
local Group = class.class "segment"
M.group = Group

local function no_field(self, field, tail)
  error(("%s has no field '%s'%s%s"):format(rawget(self, "name"), tostring(field), tail,
    class.hint(field, rawget(self, "fields"))), 3)
end

function Group.__index(self, field)
  local id = rawget(self, "fields")[field]
  if id then
    return read(rawget(self, "cpu"), id)
  end
  if not class.is_probe(field) then no_field(self, field, "") end
end

function Group.__newindex(self, field, value)
  local id = rawget(self, "fields")[field]
  if not id then no_field(self, field, " that can be set") end
  write(rawget(self, "cpu"), id, value)
end

Group.__tostring = check.text("segment", function(self)
  local parts = {}
  for _, field in ipairs { "selector", "base", "limit", "access" } do
    if rawget(self, "fields")[field] then
      parts[#parts + 1] = field .. " " .. u64.hex(self[field])
    end
  end
  return rawget(self, "name") .. " (" .. table.concat(parts, ", ") .. ")"
end)

--- The register or group of that name, or nil.
function M.get(cpu, name)
  local id = ids[name]
  if id then return read(cpu, id) end
  local fields = groups[name]
  if fields then return setmetatable({ cpu = cpu, name = name, fields = fields }, Group) end
  return nil
end

--- Whether the name is that of a register with fields.
function M.is_group(name)
  return groups[name] ~= nil
end

--- A set of the names of all registers.
function M.names()
  local names = {}
  for _, set in ipairs { ids, groups } do
    for name in pairs(set) do names[name] = true end
  end
  return names
end

--- Writes a register; false if there is none of that name.
function M.set(cpu, name, value)
  local id = ids[name]
  if not id then return false end
  write(cpu, id, value)
  return true
end

local function check_name(what, name, set)
  if set[name] then return end
  error(("%s: there is no %s%s"):format(what, tostring(name), class.hint(name, set)),
    class.outside())
end

--- Checks `registers` of a vCPU's options: a table of registers by name, segments as tables of
--- their fields.
function M.check(what, list)
  if type(list) ~= "table" then
    error(("%s: a table of registers by name expected, got %s"):format(what, type(list)),
      class.outside())
  end
  for name, value in pairs(list) do
    check_name(what, name, M.names())
    if groups[name] then
      if type(value) ~= "table" then
        error(("%s: %s: a table of its fields expected, got %s"):format(what, name, type(value)),
          class.outside())
      end
      for field in pairs(value) do check_name(what .. ": " .. name, field, groups[name]) end
    end
  end
end

--- Writes rip, rsp and `registers` of a vCPU's options.
function M.assign(cpu, options)
  cpu.rip, cpu.rsp = options.rip or 0, options.rsp or cpu.rsp
  for name, value in pairs(options.registers or {}) do
    if groups[name] then
      for field, one in pairs(value) do write(cpu, groups[name][field], one) end
    else
      write(cpu, ids[name], value)
    end
  end
end

local Set = class.define(class.class("set of registers", "regs"), {}, table.concat(order, " "))

function Set.__tostring(set)
  local parts = {}
  for i, name in ipairs(order) do
    parts[#parts + 1] = ("%-9s %s"):format(name, u64.key(set[name]))
      .. (i % 4 == 0 and "\n" or "   ")
  end
  return (table.concat(parts):gsub("%s+$", ""))
end

--- Every single register by name.
function M.all(cpu)
  local set = {}
  for _, name in ipairs(order) do set[name] = read(cpu, ids[name]) end
  return setmetatable(set, Set)
end

return M
