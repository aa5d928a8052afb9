-- SPDX-License-Identifier: MIT
-- Where a vCPU's local APIC is. KVM has one place for all spaces, and only with VM_ACCEL_APIC; any
-- other is a page without memory, whose accesses exit.

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local c = require "lunavisor.hv.constants"
local machine = require "lunavisor.hv.machine"
local states = require "lunavisor.hv.state"

local fail, try = call.fail, call.try

local APIC_BASE = 0x1b
local PAGE, REGISTERS = 4096, 0x400

local M = {}

-- Where KVM has it.
local function set_base(v, gpa)
  v.cpu.msr[APIC_BASE] = u64.band(v.cpu.msr[APIC_BASE], 0xfff) + u64.exact(gpa)
  return true
end

function M.set(v, asid, gpa)
  if not machine.spaces[asid] then return fail("bad_argument", "there is no space %d", asid) end
  if gpa % PAGE ~= 0 or gpa >= 2 ^ 52 then
    return fail("bad_argument", "a local APIC cannot be at gpa 0x%x: a multiple of 4096 expected",
      gpa)
  end
  if asid == 0 and machine.has(c.VM_ACCEL_APIC) then return try(set_base, v, gpa) end
  v.apic_pages[asid] = gpa
  return true
end

local types = { r = 0, w = 1, x = 2 } -- linear accesses: SDM Vol. 3, table 28-6

--- The exit qualification of a fault at the page of the vCPU's local APIC; nil for another.
function M.qualification(v, exit)
  local gpa = v.apic_pages[exit.space.id]
  if not gpa or exit.gpa < gpa or exit.gpa >= gpa + PAGE then return nil end
  return exit.gpa - gpa + types[exit.access] * 0x1000
end

--- What is to be known of that exit beside the VMCS: the register that is read.
function M.information(v, qualification)
  if qualification >= 0x1000 or not machine.has(c.VM_ACCEL_APIC) then
    return { code = c.VM_EXITINFO_VMX }
  end
  local offset, value = qualification - qualification % 16, 0
  if offset < REGISTERS then
    value = states.word(assert(v.cpu.apic:get()), offset)
  end
  return { code = c.VM_EXITINFO_APIC_ACCESS_READ, value = value }
end

return M
