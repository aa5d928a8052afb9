-- SPDX-License-Identifier: MIT
-- Where vCPUs stand when a run ends that none of them has ended.

local raw = require "lunavisor.binding.backend"
local u64 = require "lunavisor.text.u64"

local M = {}

local UNINITIALIZED, INIT_RECEIVED, HALTED = 1, 2, 3 -- luna_mp_state
local IF = 0x200

local function is_off(cpu)
  return u64.band(cpu.rflags, IF) == u64.exact(0)
end

--- Whether a vCPU is halted inside KVM with interrupts off: then only an NMI, an SMI or INIT would
--- wake it.
function M.stuck(cpu)
  return raw.get_mp_state(cpu) == HALTED and is_off(cpu) or nil
end

-- A vCPU without a thread: { cpu =, rip =, parked =, stuck =, waits = }.
local function place_of(cpu, hlt)
  local state = raw.get_mp_state(cpu)
  local halted = state == HALTED or cpu.parked and raw.exit(cpu).kind == hlt
  return {
    cpu = cpu, rip = cpu.rip, parked = cpu.parked, halted = halted,
    stuck = halted and is_off(cpu),
    waits = state == UNINITIALIZED and "INIT" or state == INIT_RECEIVED and "SIPI" or nil,
  }
end

--- The places of all vCPUs of a VM; `hlt` is the number of that exit kind.
function M.all(vm, hlt)
  local places = {}
  for i, cpu in ipairs(vm.vcpus) do places[i] = place_of(cpu, hlt) end
  return places
end

M.STUCK = "halted with interrupts off, so that no interrupt wakes it"

local function text(place)
  local parts = {}
  if place.parked then parts[#parts + 1] = "parked" end
  if place.waits then parts[#parts + 1] = "waits for " .. place.waits end
  if place.stuck then
    parts[#parts + 1] = M.STUCK
  elseif place.halted then
    parts[#parts + 1] = "halted"
  end
  parts[#parts + 1] = "at rip " .. u64.hex(place.rip)
  return ("vcpu %d %s"):format(place.cpu.id, table.concat(parts, ", "))
end

--- A sentence of them.
function M.text(places)
  local list = {}
  for i, place in ipairs(places) do list[i] = text(place) end
  return table.concat(list, "; ")
end

return M
