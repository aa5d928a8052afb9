-- SPDX-License-Identifier: MIT
-- Registers by their SDM names: cpu.rax, cpu.cr3, cpu.cs.base; 64-bit ones are u64.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
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

local function read(cpu, id, level)
  if not cpu[1] then error("attempt to use a closed vcpu", level + 1) end
  local value, message = raw.get(cpu, id)
  if value == nil then error(message, level + 1) end
  return value
end

local function write(cpu, id, value, level)
  if not cpu[1] then error("attempt to use a closed vcpu", level + 1) end
  local exact = u64.exact(value)
  if exact == nil then
    error(("register %s: an integer expected, got %s (write large ones as u64 \"0x...\")")
      :format(raw.register_name(id), tostring(value)), level + 1)
  end
  local ok, message = raw.set(cpu, id, exact)
  if not ok then error(message, level + 1) end
end

-- A segment or table register: its fields are read from and written to the vCPU.
local Group = { __name = "segment" }

function Group.__index(self, field)
  local id = rawget(self, "fields")[field]
  return id and read(rawget(self, "cpu"), id, 2)
end

function Group.__newindex(self, field, value)
  local id = rawget(self, "fields")[field]
  if not id then
    error(("%s has no field '%s'"):format(rawget(self, "name"), tostring(field)), 2)
  end
  write(rawget(self, "cpu"), id, value, 2)
end

Group.__tostring = check.text("segment", function(self)
  local parts = {}
  for _, field in ipairs { "selector", "base", "limit", "access" } do
    local value = self[field]
    if value then parts[#parts + 1] = field .. " " .. u64.hex(value) end
  end
  return rawget(self, "name") .. " (" .. table.concat(parts, ", ") .. ")"
end)

--- The register or group of that name, or nil.
function M.get(cpu, name)
  local id = ids[name]
  if id then return read(cpu, id, 3) end
  local fields = groups[name]
  if fields then return setmetatable({ cpu = cpu, name = name, fields = fields }, Group) end
  return nil
end

--- Whether the name is that of a register with fields.
function M.is_group(name)
  return groups[name] ~= nil
end

--- Writes a register; false if there is none of that name.
function M.set(cpu, name, value)
  local id = ids[name]
  if not id then return false end
  write(cpu, id, value, 3)
  return true
end

local Set = {}

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
  for _, name in ipairs(order) do set[name] = read(cpu, ids[name], 3) end
  return setmetatable(set, Set)
end

return M
