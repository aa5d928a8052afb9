-- SPDX-License-Identifier: MIT
-- The fields of the VMCS: which register, control or exit each is.

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local c = require "lunavisor.hv.constants"
local controls = require "lunavisor.hv.control"
local events = require "lunavisor.hv.event"
local exits = require "lunavisor.hv.exit"
local machine = require "lunavisor.hv.machine"

local fail, try = call.fail, call.try
local floor = math.floor
local ZERO, ALL = u64.exact(0), u64.bnot(0)

-- By number: { get = function(v), set = function(v, value), fixed = the only value, kind = of
-- controls }; false for one that KVM has nothing like.
local fields = {}

for name, number in pairs(c) do
  if name:match "^VMCS_" and name ~= "VMCS_MAX" then fields[number] = false end
end

local function register(number, name)
  fields[number] = {
    get = function(v) return exits.get(v, name) end,
    set = function(v, value) return exits.set(v, name, value) end,
  }
end

-- In the order of the VMCS.
for i, segment in ipairs { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" } do
  local n = 2 * (i - 1)
  register(c.VMCS_GUEST_ES + n, segment .. ".selector")
  register(c.VMCS_GUEST_ES_BASE + n, segment .. ".base")
  register(c.VMCS_GUEST_ES_LIMIT + n, segment .. ".limit")
  register(c.VMCS_GUEST_ES_AR + n, segment .. ".access")
end

for field, name in pairs {
  CR0 = "cr0", CR3 = "cr3", CR4 = "cr4", RSP = "rsp", RIP = "rip", RFLAGS = "rflags", DR7 = "dr7",
  IA32_EFER = "efer", GDTR_BASE = "gdtr.base", GDTR_LIMIT = "gdtr.limit",
  IDTR_BASE = "idtr.base", IDTR_LIMIT = "idtr.limit",
} do
  register(c["VMCS_GUEST_" .. field], name)
end

for field, msr in pairs {
  IA32_SYSENTER_CS = 0x174, SYSENTER_ESP = 0x175, SYSENTER_EIP = 0x176, IA32_DEBUGCTL = 0x1d9,
  IA32_PAT = 0x277,
} do
  fields[c["VMCS_GUEST_" .. field]] = {
    get = function(v) return try(function() return v.cpu.msr[msr] end) end,
    set = function(v, value) return try(function() v.cpu.msr[msr] = value return true end) end,
  }
end

for field, kind in pairs {
  PIN_BASED = c.VMX_CAP_PINBASED, CPU_BASED = c.VMX_CAP_PROCBASED,
  CPU_BASED2 = c.VMX_CAP_PROCBASED2, VMENTRY_CONTROLS = c.VMX_CAP_ENTRY,
  VMEXIT_CONTROLS = c.VMX_CAP_EXIT,
} do
  fields[c["VMCS_CTRL_" .. field]] = {
    kind = kind,
    get = function(v) return controls.get(v, kind) end,
    set = function(v, value) return controls.set(v, kind, value) end,
  }
end

-- No exception exits, no bit of CR0 or CR4 is masked.
for _, field in ipairs {
  "EXC_BITMAP", "PF_ERROR_MASK", "PF_ERROR_MATCH", "CR0_MASK", "CR4_MASK", "CR3_COUNT",
  "TPR_THRESHOLD",
} do
  fields[c["VMCS_CTRL_" .. field]] = { fixed = ZERO }
end
fields[c.VMCS_GUEST_LINK_POINTER] = { fixed = ALL }

-- Values that are kept with the vCPU.
local function kept(number, place, key, check)
  fields[number] = {
    get = function(v) return (place and v[place] or v)[key] end,
    set = function(v, value)
      if check then
        local ok, message, code = check(value)
        if not ok then return nil, message, code end
      end
      (place and v[place] or v)[key] = value
      return true
    end,
  }
end

kept(c.VMCS_CTRL_CR0_SHADOW, "shadows", "cr0")
kept(c.VMCS_CTRL_CR4_SHADOW, "shadows", "cr4")
kept(c.VMCS_CTRL_VMENTRY_EXC_ERROR, nil, "event_error")
kept(c.VMCS_CTRL_VMENTRY_INSTR_LEN, nil, "event_length")
kept(c.VMCS_CTRL_VMENTRY_IRQ_INFO, nil, "event", events.check)
do
  local info = fields[c.VMCS_CTRL_VMENTRY_IRQ_INFO]
  local set = info.set
  info.set = function(v, value)
    if u64.lt(value, c.IRQ_INFO_VALID) and events.check(value) then value = ZERO end
    return set(v, value)
  end
end

fields[c.VMCS_CTRL_TSC_OFFSET] = {
  get = function(v) return call.try_host(function() return v.cpu.tsc_offset end) end,
  set = function(v, value)
    return call.try_host(function() v.cpu.tsc_offset = value return true end)
  end,
}

-- What blocks events, by bit (SDM Vol. 3, 25.4.2).
local blocking = { [1] = "sti", [2] = "mov_ss", [8] = "nmi" }

fields[c.VMCS_GUEST_INTERRUPTIBILITY] = {
  get = function(v)
    return try(function()
      local flags, value = v.cpu.blocking, 0
      for bit, name in pairs(blocking) do value = value + (flags[name] and bit or 0) end
      return u64.exact(value)
    end)
  end,
  set = function(v, value)
    if not call.within(value, 0xb) then
      return fail("bad_argument", "nothing blocks events as %s says: 0xb are known",
        u64.hex(value))
    end
    local flags = {}
    for bit, name in pairs(blocking) do flags[name] = call.has(u64.tonumber(value), bit) end
    return try(function() v.cpu.blocking = flags return true end)
  end,
}

-- The activity states of the VMCS (SDM Vol. 3, 25.4.2).
local activities = {
  runnable = 0, halted = 1, uninitialized = 3, init_received = 3, sipi_received = 3,
}
local states = { [0] = "runnable", "halted", nil, "init_received" }

fields[c.VMCS_GUEST_ACTIVITY_STATE] = {
  get = function(v)
    return try(function() return u64.exact(activities[v.cpu.mp_state]) end)
  end,
  set = function(v, value)
    local state = u64.lt(value, 4) and states[u64.tonumber(value)]
    if not state or state ~= "runnable" and not machine.has(c.VM_ACCEL_APIC) then
      return fail("unsupported", "KVM has no activity state %s (halted and waiting: with "
        .. "VM_ACCEL_APIC)", u64.hex(value))
    end
    return try(function() v.cpu.mp_state = state return true end)
  end,
}

-- ---- Access ----

-- Fields that tell of the exit are read-only: bits 10 and 11 of the number are 1.
local function is_exit(number)
  return floor(number / 0x400) % 4 == 1
end

local function field_of(number)
  local field = fields[number]
  if field then return field end
  if field == false then
    return fail("unsupported", "KVM has nothing like field 0x%x of the VMCS", number)
  end
  return fail("bad_argument", "the VMCS has no field 0x%x", number)
end

-- What the field's width (bits 13 and 14: 16, 64, 32 bits, natural) can hold.
local widest = { [0] = u64(0xffff), ALL, u64(0xffffffff), ALL }

local function widest_of(number)
  return widest[floor(number / 0x2000) % 4]
end

local function read(v, number)
  if fields[number] == false and is_exit(number) then return exits.field(v, number) end
  local field, message, code = field_of(number)
  if not field then return nil, message, code end
  return field.fixed or field.get(v)
end

local function write(v, number, value)
  if fields[number] ~= nil and u64.lt(widest_of(number), value) then
    return fail("bad_argument", "field 0x%x cannot hold %s", number, u64.hex(value))
  elseif fields[number] == false and is_exit(number) then
    return fail("denied", "field 0x%x of the VMCS is read-only", number)
  end
  local field, message, code = field_of(number)
  if not field then return nil, message, code end
  if not field.fixed then return field.set(v, value) end
  if value == field.fixed then return true end
  return fail("unsupported", "KVM cannot follow %s in field 0x%x: only %s", u64.hex(value), number,
    u64.hex(field.fixed))
end

-- Two results: what must be 1, and what may be.
local function allowed(_, number)
  if fields[number] == false and is_exit(number) then
    return fail("unsupported", "field 0x%x of the VMCS is read-only", number)
  end
  local field, message, code = field_of(number)
  if not field then return nil, message, code end
  if field.fixed then return field.fixed, field.fixed end
  if not field.kind then return ZERO, widest_of(number) end
  local must, may = controls.bits(field.kind)
  return u64(must), u64(may)
end

return function(hv)
  local function define(...) call.define(hv, ...) end

  --- What the control fields can be (VMX_CAP_*), in the layout of Intel's capability MSRs. Needs no
  --- VM.
  define("vmx_read_capability", { "field" }, controls.capability)

  --- A field of the VMCS.
  define("vmx_vcpu_read_vmcs", { "vcpu", "field" }, read)
  define("vmx_vcpu_write_vmcs", { "vcpu", "field", "value" }, write)

  --- What a write of the field accepts: bits that must be 1, and bits that may be.
  define("vmx_vcpu_get_cap_write_vmcs", { "vcpu", "field" }, allowed)

  -- For guests that are hypervisors themselves, which KVM does inside.
  for name, arguments in pairs {
    vmx_vcpu_read_shadow_vmcs = { "vcpu", "field" },
    vmx_vcpu_write_shadow_vmcs = { "vcpu", "field", "value" },
    vmx_vcpu_set_shadow_access = { "vcpu", "field", "flags" },
  } do
    define(name, arguments, function()
      return fail("unsupported", "KVM keeps the VMCS of a guest's guest to itself")
    end)
  end
end
