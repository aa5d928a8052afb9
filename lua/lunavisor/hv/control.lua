-- SPDX-License-Identifier: MIT
-- The VMCS's controls: what KVM does anyway must be 1, what it cannot do must be 0, and between the
-- two there is little (SDM Vol. 3, 25.6 to 25.8 and appendix A).

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local c = require "lunavisor.hv.constants"
local exits = require "lunavisor.hv.exit"
local machine = require "lunavisor.hv.machine"

local fail, has = call.fail, call.has

local EFER_LMA = 0x400

local M = {}

-- By VMX_CAP_*: the bits that must be 1, Intel's reserved ones first, and those that may be.
local kinds = {
  [c.VMX_CAP_PINBASED] = { -- external interrupts and NMIs are the host's
    0x16 + c.PIN_BASED_INTR + c.PIN_BASED_NMI, c.PIN_BASED_VIRTUAL_NMI,
  },
  [c.VMX_CAP_PROCBASED] = { -- without a local APIC in KVM, HLT exits; every port does
    0x04006172 + c.CPU_BASED_HLT + c.CPU_BASED_UNCOND_IO + c.CPU_BASED_MSR_BITMAPS
      + c.CPU_BASED_SECONDARY_CTLS + c.CPU_BASED_TSC_OFFSET,
    c.CPU_BASED_IRQ_WND + c.CPU_BASED_MTF,
  },
  [c.VMX_CAP_PROCBASED2] = { -- the guest has these instructions where CPUID says so
    c.CPU_BASED2_EPT + c.CPU_BASED2_UNRESTRICTED + c.CPU_BASED2_RDTSCP + c.CPU_BASED2_INVPCID
      + c.CPU_BASED2_XSAVES_XRSTORS, c.CPU_BASED2_VPID,
  },
  [c.VMX_CAP_ENTRY] = { -- EFER is among the guest's registers, and IA-32e mode is its LMA
    0x11fb + c.VMENTRY_LOAD_EFER,
    c.VMENTRY_LOAD_DBG_CONTROLS + c.VMENTRY_GUEST_IA32E + c.VMENTRY_LOAD_IA32_PAT,
  },
  [c.VMX_CAP_EXIT] = {
    0x36dfb + c.VMEXIT_HOST_IA32E + c.VMEXIT_SAVE_EFER + c.VMEXIT_LOAD_EFER,
    c.VMEXIT_SAVE_DBG_CONTROLS + c.VMEXIT_ACK_INTR + c.VMEXIT_SAVE_IA32_PAT
      + c.VMEXIT_LOAD_IA32_PAT,
  },
}

--- The bits that must be 1, and those that may be, of one kind of controls.
function M.bits(kind)
  local must, more = kinds[kind][1], kinds[kind][2]
  if kind == c.VMX_CAP_PROCBASED and machine.vm and machine.has(c.VM_ACCEL_APIC) then
    must, more = must - c.CPU_BASED_HLT, more - c.CPU_BASED_IRQ_WND -- those are KVM's
  end
  return must, must + more
end

--- The controls of a vCPU that is made.
function M.initial()
  local list = {}
  for kind in pairs(kinds) do list[kind] = (M.bits(kind)) end
  return list
end

function M.get(v, kind)
  local value = u64.exact(v.controls[kind])
  if kind ~= c.VMX_CAP_ENTRY then return value end
  local efer, message, code = exits.get(v, "efer")
  if not efer then return nil, message, code end
  local long = u64.band(efer, EFER_LMA) ~= u64.exact(0)
  return u64.bor(value, long and c.VMENTRY_GUEST_IA32E or 0)
end

local function set_long_mode(v, on)
  local efer, message, code = exits.get(v, "efer")
  if not efer then return nil, message, code end
  if on == (u64.band(efer, EFER_LMA) ~= u64.exact(0)) then return true end
  return exits.set(v, "efer", u64.bxor(efer, EFER_LMA))
end

function M.set(v, kind, value)
  local must, may = M.bits(kind)
  if not call.within(value, may) or not call.within(must, value) then
    return fail("bad_argument", "controls %s are outside the capability: 0x%08x must be 1, 0x%08x "
      .. "may be", u64.hex(value), must, may)
  end
  value = u64.tonumber(value)
  if kind == c.VMX_CAP_ENTRY then
    local long = has(value, c.VMENTRY_GUEST_IA32E)
    local ok, message, code = set_long_mode(v, long)
    if not ok then return nil, message, code end
    value = long and value - c.VMENTRY_GUEST_IA32E or value -- the register has it
  end
  if kind == c.VMX_CAP_PROCBASED then
    v.cpu:window(has(value, c.CPU_BASED_IRQ_WND))
    v.single_step = has(value, c.CPU_BASED_MTF)
  end
  v.controls[kind] = value
  return true
end

-- The TRUE forms are the same here.
local plain = {
  [c.VMX_CAP_TRUE_PINBASED] = c.VMX_CAP_PINBASED, [c.VMX_CAP_TRUE_PROCBASED] = c.VMX_CAP_PROCBASED,
  [c.VMX_CAP_TRUE_ENTRY] = c.VMX_CAP_ENTRY, [c.VMX_CAP_TRUE_EXIT] = c.VMX_CAP_EXIT,
}

-- CR0.PE, NE and PG and CR4.VMXE are fixed for a processor in VMX operation, not for KVM's guests.
local values = {
  [c.VMX_CAP_BASIC] = u64(2 ^ 23 + 2 ^ 22, 0), -- TRUE_CTLS; INS and OUTS are described
  [c.VMX_CAP_CR0_FIXED0] = u64(0), [c.VMX_CAP_CR4_FIXED0] = u64(0),
  [c.VMX_CAP_CR0_FIXED1] = u64(0xe005003f),    -- PG CD NW AM WP NE ET TS EM MP PE
  [c.VMX_CAP_EPT_VPID_CAP] = u64(0), -- no memory that can only be executed, no accessed bits
  [c.VMX_CAP_PREEMPTION_TIMER] = u64(1),       -- of vcpu_run_until: in nanoseconds
}

--- What the control fields can be, as Intel's capability MSRs have it.
function M.capability(field)
  local kind = plain[field] or field
  if kinds[kind] then
    local must, may = M.bits(kind)
    return u64(may, must)
  elseif values[field] then
    return values[field]
  elseif field <= c.VMX_CAP_EPT_VPID_CAP then
    return fail("unsupported", "KVM does not tell capability %d", field)
  end
  return fail("bad_argument", "there is no capability %d", field)
end

return M
