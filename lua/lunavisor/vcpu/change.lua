-- SPDX-License-Identifier: MIT
-- Registers that have changed: between two looks, or since the guest was last entered.

local raw = require "lunavisor.binding.backend"
local registers = require "lunavisor.vcpu.registers"
local u64 = require "lunavisor.text.u64"

local M = {}

--- What has changed between two tables of registers by name: a table of what it was before.
function M.between(before, now)
  local changed = {}
  for name, value in pairs(now) do
    if before[name] ~= nil and before[name] ~= value then changed[name] = before[name] end
  end
  return changed
end

--- The same of the general registers since a run has begun, or a handler has let the guest go on:
--- between then and `now`. nil where none was kept.
function M.since_entry(cpu, now)
  local before = {}
  for name in pairs(now) do
    local id = registers.id(name)
    before[name] = id and raw.marked(cpu, id)
  end
  return next(before) and M.between(before, now) or nil
end

--- "rax 0x1 -> 0x2, rip ...", nil where nothing has changed.
function M.text(changed, now)
  local list = {}
  for name, before in pairs(changed) do
    list[#list + 1] = ("%s %s -> %s"):format(name, u64.hex(before), u64.hex(now[name]))
  end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or nil
end

--- The table of registers (tostring of cpu:regs()), with * behind those that have changed.
function M.marked(now, changed)
  return (tostring(now):gsub("(%a%w*)( +)(%x+)", function(name, gap, value)
    if #value == 16 and changed[name] then return name .. "*" .. gap:sub(2) .. value end
  end))
end

return M
