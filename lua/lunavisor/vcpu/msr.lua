-- SPDX-License-Identifier: MIT
-- Model-specific registers: cpu.msr[0xc0000080], cpu.msr.efer, cpu.msr["IA32_EFER"]; u64.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local Msrs = class.class("set of MSRs", "cpu.msr")

local function number_of(cpu, key, level)
  if not cpu[1] then error("attempt to use a closed vcpu", level + 1) end
  if type(key) == "string" then
    check.name("cpu.msr", key, "an MSR's name", level)
    local index, message = raw.msr_find(key)
    if not index then error(message, level + 1) end
    return index
  end
  key = check.plain(key)
  if type(key) ~= "number" or key % 1 ~= 0 or key < 0 or key >= 2 ^ 32 then
    error(("an MSR's number (0 to 0xffffffff) or name expected, got %s"):format(tostring(key)),
      level + 1)
  end
  return math.floor(key)
end

function Msrs.__index(self, key)
  local cpu = rawget(self, "cpu")
  local value, message = raw.get_msr(cpu, number_of(cpu, key, 2))
  if value == nil then error(message, 2) end
  return value
end

function Msrs.__newindex(self, key, value)
  local cpu = rawget(self, "cpu")
  local index = number_of(cpu, key, 2)
  local exact = u64.exact(value)
  if exact == nil then
    error(("MSR %s: an integer expected, got %s (write large ones as u64 \"0x...\")")
      :format(raw.msr_name(index) or ("0x%x"):format(index), tostring(value)), 2)
  end
  local ok, message = raw.set_msr(cpu, index, exact)
  if not ok then error(message, 2) end
end

return function(cpu)
  return setmetatable({ cpu = cpu }, Msrs)
end
