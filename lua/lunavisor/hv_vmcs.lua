-- SPDX-License-Identifier: MIT
-- The Hypervisor framework's VMCS: function(hv, shared). Guest-state fields are registers, exit
-- fields are made from the last exit, controls have one value or two.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local u64 = require "lunavisor.u64"

local floor = math.floor

return function(hv, shared)
  local fail, result, vcpu_of = shared.fail, shared.result, shared.vcpu
  local has, within = shared.has, shared.within

  -- ---- Fields ----

  local registers = {
    [hv.VMCS_GUEST_CR0] = "cr0", [hv.VMCS_GUEST_CR3] = "cr3", [hv.VMCS_GUEST_CR4] = "cr4",
    [hv.VMCS_GUEST_RSP] = "rsp", [hv.VMCS_GUEST_RIP] = "rip", [hv.VMCS_GUEST_RFLAGS] = "rflags",
    [hv.VMCS_GUEST_IA32_EFER] = "efer", [hv.VMCS_GUEST_DR7] = "dr7",
    [hv.VMCS_GUEST_GDTR_BASE] = "gdtr.base", [hv.VMCS_GUEST_GDTR_LIMIT] = "gdtr.limit",
    [hv.VMCS_GUEST_IDTR_BASE] = "idtr.base", [hv.VMCS_GUEST_IDTR_LIMIT] = "idtr.limit",
  }
  for i, segment in ipairs { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" } do
    local at = 2 * (i - 1)
    registers[hv.VMCS_GUEST_ES + at] = segment .. ".selector"
    registers[hv.VMCS_GUEST_ES_BASE + at] = segment .. ".base"
    registers[hv.VMCS_GUEST_ES_LIMIT + at] = segment .. ".limit"
    registers[hv.VMCS_GUEST_ES_AR + at] = segment .. ".access"
  end

  local msrs = {
    [hv.VMCS_GUEST_IA32_SYSENTER_CS] = 0x174, [hv.VMCS_GUEST_SYSENTER_ESP] = 0x175,
    [hv.VMCS_GUEST_SYSENTER_EIP] = 0x176, [hv.VMCS_GUEST_IA32_DEBUGCTL] = 0x1d9,
    [hv.VMCS_GUEST_IA32_PAT] = 0x277,
  }

  -- What must be 1 and what may be, as the C library has it (core/hvf/control.c), but for exits
  -- that are asked for by a control: there are none here.
  local controls = {
    [hv.VMCS_CTRL_PIN_BASED] = { 0x1f, 0x3f, capability = hv.VMX_CAP_PINBASED },
    [hv.VMCS_CTRL_CPU_BASED] = { 0x950061fa, 0x950061fa, capability = hv.VMX_CAP_PROCBASED },
    [hv.VMCS_CTRL_CPU_BASED2] = { 0x10108a, 0x1010aa, capability = hv.VMX_CAP_PROCBASED2 },
    [hv.VMCS_CTRL_VMENTRY_CONTROLS] = { 0x91fb, 0xd3ff, capability = hv.VMX_CAP_ENTRY },
    [hv.VMCS_CTRL_VMEXIT_CONTROLS] = { 0x336ffb, 0x3fefff, capability = hv.VMX_CAP_EXIT },
  }

  local fixed = {} -- fields that have one value
  for _, name in ipairs { "EXC_BITMAP", "PF_ERROR_MASK", "PF_ERROR_MATCH", "CR0_MASK", "CR4_MASK",
    "CR3_COUNT", "TPR_THRESHOLD" } do
    fixed[hv["VMCS_CTRL_" .. name]] = u64(0)
  end
  fixed[hv.VMCS_GUEST_LINK_POINTER] = u64.bnot(0)

  -- ---- Exit fields ----

  local reasons = {
    hlt = hv.VMX_REASON_HLT, pio = hv.VMX_REASON_IO, fault = hv.VMX_REASON_EPT_VIOLATION,
    host_fault = hv.VMX_REASON_EPT_VIOLATION, shutdown = hv.VMX_REASON_TRIPLE_FAULT,
    timeout = hv.VMX_REASON_VMX_TIMER_EXPIRED, interrupted = hv.VMX_REASON_IRQ,
    eoi = hv.VMX_REASON_VIRTUALIZED_EOI,
    fail_entry = 0x80000000 + hv.VMX_REASON_VMENTRY_GUEST,
  }

  local accesses = { r = 1, w = 2, x = 4 }

  local exit_fields = {
    [hv.VMCS_RO_EXIT_REASON] = function(exit)
      if exit.kind == "msr" then
        return exit.access == "r" and hv.VMX_REASON_RDMSR or hv.VMX_REASON_WRMSR
      end
      return reasons[exit.kind] or hv.VMX_REASON_IRQ
    end,
    [hv.VMCS_RO_EXIT_QUALIFIC] = function(exit)
      if exit.kind == "pio" then
        return exit.size - 1 + (exit.access == "r" and 8 or 0) + exit.port * 0x10000
      elseif exit.kind == "fault" then
        local region = exit.space:find(exit.gpa)
        local rights = region and check.rights("", region.enforced) or 0
        return accesses[exit.access] + rights * 8
      end
      return 0
    end,
    [hv.VMCS_GUEST_PHYSICAL_ADDRESS] = function(exit) return exit.gpa or 0 end,
  }

  local function is_exit(field)
    return floor(field / 0x400) % 4 == 1
  end

  -- ---- Reading and writing ----

  -- Of every width and type, up to the last that the framework names, as in core/hvf/vmcs.c.
  local known = {}
  for name, field in pairs(hv) do
    if type(name) == "string" and name:find "^VMCS_" and name ~= "VMCS_MAX" then
      known[field] = true
    end
  end

  local function fail_field(field)
    if not known[field] then
      return fail(hv.BAD_ARGUMENT, "the VMCS has no field %s", tostring(field))
    end
    return fail(hv.UNSUPPORTED, "KVM has nothing like field 0x%x of the VMCS", field)
  end

  local EFER_LMA, GUEST_IA32E = 0x400, hv.VMENTRY_GUEST_IA32E

  local function read_control(vcpu, field)
    local value = vcpu.controls[field] or controls[field][1]
    if field == hv.VMCS_CTRL_VMENTRY_CONTROLS then
      local efer = u64.band(vcpu.cpu.efer, EFER_LMA)
      if efer ~= u64.exact(0) then value = value + GUEST_IA32E end
    end
    return u64(value)
  end

  local function read(vcpu, field)
    if registers[field] then return shared.get(vcpu, registers[field]) end
    if known[field] and is_exit(field) then
      local make = exit_fields[field]
      return u64(make and vcpu.exit and make(vcpu.exit) or 0)
    end
    if controls[field] then return read_control(vcpu, field) end
    if msrs[field] then return result(raw.get_msr(vcpu.cpu, msrs[field])) end
    if fixed[field] then return fixed[field] end
    if field == hv.VMCS_CTRL_VMENTRY_IRQ_INFO then return u64(vcpu.event) end
    if field == hv.VMCS_CTRL_VMENTRY_EXC_ERROR then return u64(vcpu.error_code) end
    if field == hv.VMCS_CTRL_TSC_OFFSET then return result(raw.get_tsc_offset(vcpu.cpu)) end
    return fail_field(field)
  end

  --- A field: u64.
  function hv.vmx_vcpu_read_vmcs(id, field)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return read(vcpu, field)
  end

  local function write_control(vcpu, field, value)
    local bits = controls[field]
    local number = u64.lt(value, 2 ^ 32) and u64.tonumber(value)
    if not number or not within(number, bits[2]) or not within(bits[1], number) then
      return fail(hv.BAD_ARGUMENT, "controls %s are outside the capability: 0x%x must be 1, 0x%x "
        .. "may be", u64.hex(value), bits[1], bits[2])
    end
    if field == hv.VMCS_CTRL_VMENTRY_CONTROLS then
      local efer = u64.band(vcpu.cpu.efer, u64.bnot(EFER_LMA))
      if has(number, GUEST_IA32E) then
        efer, number = u64.bor(efer, EFER_LMA), number - GUEST_IA32E
      end
      vcpu.cpu.efer = efer
    end
    vcpu.controls[field] = number
    return true
  end

  local EVENT_TYPES = { [hv.IRQ_INFO_EXT_IRQ] = true, [hv.IRQ_INFO_NMI] = true,
    [hv.IRQ_INFO_HARD_EXC] = true }

  local function write_event(vcpu, value)
    local number = u64.lt(value, 2 ^ 32) and u64.tonumber(value)
    local kind = number and floor(number / 0x100) % 8 * 0x100
    if not number or not within(number, 0x80000fff) then
      return fail(hv.BAD_ARGUMENT, "%s is no interruption information", u64.hex(value))
    elseif has(number, hv.IRQ_INFO_VALID) and not EVENT_TYPES[kind] then
      return fail(hv.UNSUPPORTED, "KVM cannot inject an event of type %d", kind / 0x100)
    end
    vcpu.event = has(number, hv.IRQ_INFO_VALID) and number or 0
    return true
  end

  local function write(vcpu, field, value)
    if registers[field] then return shared.set(vcpu, registers[field], value) end
    if known[field] and is_exit(field) then
      return fail(hv.DENIED, "field 0x%x of the VMCS is read-only", field)
    end
    if controls[field] then return write_control(vcpu, field, value) end
    if msrs[field] then return result(raw.set_msr(vcpu.cpu, msrs[field], value)) end
    if fixed[field] then
      if value == fixed[field] then return true end
      return fail(hv.UNSUPPORTED, "KVM cannot follow %s in field 0x%x", u64.hex(value), field)
    end
    if field == hv.VMCS_CTRL_VMENTRY_IRQ_INFO then return write_event(vcpu, value) end
    if field == hv.VMCS_CTRL_VMENTRY_EXC_ERROR then
      vcpu.error_code = u64.tonumber(u64.band(value, 0xffffffff))
      return true
    end
    if field == hv.VMCS_CTRL_TSC_OFFSET then return result(raw.set_tsc_offset(vcpu.cpu, value)) end
    return fail_field(field)
  end

  function hv.vmx_vcpu_write_vmcs(id, field, value)
    value = shared.u64("hv.vmx_vcpu_write_vmcs: value", value)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return write(vcpu, field, value)
  end

  --- The event that the script wants the guest to take: true, or nil, message, code.
  function shared.inject(vcpu)
    if vcpu.event == 0 then return true end
    local vector, kind = vcpu.event % 0x100, floor(vcpu.event / 0x100) % 8 * 0x100
    local done, message, code
    if kind == hv.IRQ_INFO_HARD_EXC then
      done, message, code = raw.inject(vcpu.cpu, vector, vcpu.error_code, vcpu.cpu.cr2)
    elseif kind == hv.IRQ_INFO_NMI then
      done, message, code = raw.nmi(vcpu.cpu)
    else
      done, message, code = raw.interrupt_vector(vcpu.cpu, vector)
    end
    if done == nil then return result(nil, message, code) end
    vcpu.event = 0
    return true
  end

  -- ---- Capabilities ----

  local capabilities = { [hv.VMX_CAP_CR0_FIXED0] = u64(0), [hv.VMX_CAP_CR4_FIXED0] = u64(0),
    [hv.VMX_CAP_EPT_VPID_CAP] = u64(0), [hv.VMX_CAP_CR0_FIXED1] = u64(0xe005003f),
    [hv.VMX_CAP_BASIC] = u64(0x00c00000, 0), [hv.VMX_CAP_PREEMPTION_TIMER] = u64(1) }
  for _, bits in pairs(controls) do capabilities[bits.capability] = u64(bits[2], bits[1]) end
  for from, to in pairs { PINBASED = "TRUE_PINBASED", PROCBASED = "TRUE_PROCBASED",
    ENTRY = "TRUE_ENTRY", EXIT = "TRUE_EXIT" } do
    capabilities[hv["VMX_CAP_" .. to]] = capabilities[hv["VMX_CAP_" .. from]]
  end

  --- A capability (HV_VMX_CAP_*): u64.
  function hv.vmx_read_capability(field)
    if capabilities[field] then return capabilities[field] end
    if type(field) == "number" and field >= 0 and field <= hv.VMX_CAP_EPT_VPID_CAP then
      return fail(hv.UNSUPPORTED, "KVM does not tell capability %d", field)
    end
    return fail(hv.BAD_ARGUMENT, "there is no capability %s", tostring(field))
  end
end
