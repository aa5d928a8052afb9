-- SPDX-License-Identifier: MIT
-- Interrupt controllers of a VM made with VM_ACCEL_APIC: local APICs inside KVM, and an IOAPIC,
-- whose registers the guest reaches through the program.

local u64 = require "lunavisor.text.u64"
local atpic = require "lunavisor.hv.atpic"
local call = require "lunavisor.hv.call"
local c = require "lunavisor.hv.constants"
local ioapic = require "lunavisor.hv.ioapic"
local machine = require "lunavisor.hv.machine"
local place = require "lunavisor.hv.place"
local states = require "lunavisor.hv.state"

local fail, try, has = call.fail, call.try, call.has
local floor = math.floor

local MESSAGES = 0xfee00000
local LEVEL, ASSERT = 0x8000, 0x4000 -- of a message's data, and of the ICR
local APIC_BASE, X2APIC = 0x1b, 0x400
local VECTOR_GP = 13

local function set_interrupt(id, vector, trigger)
  local v, message, code = machine.find(id)
  if not v then return nil, message, code end
  if vector < 16 or vector > 255 or trigger > c.APIC_LEVEL_TRIGGER then
    return fail("bad_argument", "no interrupt has vector %d and trigger %d", vector, trigger)
  elseif trigger == c.APIC_EDGE_TRIGGER_AEOI then
    return fail("unsupported", "KVM's local APICs do not end interrupts by themselves")
  end
  local level = trigger == c.APIC_LEVEL_TRIGGER and LEVEL + ASSERT or 0
  return ioapic.message(MESSAGES + id * 0x1000, vector + level)
end

local function send_message(address, data)
  if data > 0xffffffff or u64.tonumber(u64.rshift(address, 20)) ~= 0xfee then
    return fail("bad_argument", "0x%x to %s is no message", data, u64.hex(address))
  end
  return ioapic.message(address, data)
end

-- ---- Registers of a local APIC ----

local EOI, SVR, ICR, ICR_HIGH, SELF = 0xb0, 0xf0, 0x300, 0x310, 0x3f0
local ISR, TMR = 0x100, 0x180

local writable = {
  [0x20] = true, [0x80] = true, [0xd0] = true, [0xe0] = true, [SVR] = true, [0x280] = true,
  [0x2f0] = true, [ICR_HIGH] = true, [0x320] = true, [0x330] = true, [0x340] = true,
  [0x350] = true, [0x360] = true, [0x370] = true, [0x380] = true, [0x3e0] = true,
}

local function is_register(offset)
  if offset < 0x400 and offset % 16 == 0 then return true end
  return fail("bad_argument", "a local APIC has no register at 0x%x", offset)
end

local function read_register(v, offset)
  return states.word(assert(v.cpu.apic:get()), offset)
end

local function write_register(v, offset, data)
  local page = assert(v.cpu.apic:get())
  assert(v.cpu.apic:set(states.patch(page, offset, states.pack(data, 4))))
end

local INIT, STARTUP, MODES, LOGICAL = 0x500, 0x600, 0x700, 0x800 -- of the ICR
local SHORTHAND = 0x40000
local TO_TARGET, TO_SELF, TO_ALL = 0, 1, 2

-- Whether an IPI of the vCPU goes to another, by the number that is its APIC ID. Logical
-- destinations are those of the flat model as firmware sets it up.
local function goes_to(v, command, target, id)
  local shorthand = floor(command / SHORTHAND) % 4
  if shorthand == TO_SELF then return id == v.id end
  if shorthand ~= TO_TARGET then return shorthand == TO_ALL or id ~= v.id end
  if target == 0xff then return true end
  if has(command, LOGICAL) then return id < 8 and has(target, 2 ^ id) end
  return id == target
end

local infos = { [INIT] = c.VM_EXITINFO_INIT_AP, [STARTUP] = c.VM_EXITINFO_STARTUP_AP }

-- A level-triggered INIT that is not asserted starts nothing.
local function send_ipi(v, command, target)
  local mode = call.band(command, MODES)
  if mode == INIT and has(command, LEVEL) and not has(command, ASSERT) then return end
  local reached, data = {}, call.band(command, 0xff + MODES + LEVEL + ASSERT)
  for id in pairs(machine.vcpus) do
    reached[id] = goes_to(v, command, target, id)
    if reached[id] then
      local ok, message = ioapic.message(MESSAGES + id * 0x1000, data)
      if not ok then error(message, 0) end
    end
  end
  if infos[mode] then
    v.info = { code = infos[mode], reached = reached, address = command % 0x100 * 0x1000 }
  end
end

-- Takes the highest vector out of service.
local function end_interrupt(v)
  local page = assert(v.cpu.apic:get())
  for word = 7, 0, -1 do
    local served = states.word(page, ISR + 16 * word)
    for bit = 31, 0, -1 do
      if has(served, 2 ^ bit) then
        local rest = states.pack(served - 2 ^ bit, 4)
        assert(v.cpu.apic:set(states.patch(page, ISR + 16 * word, rest)))
        return has(states.word(page, TMR + 16 * word), 2 ^ bit) and 32 * word + bit or nil
      end
    end
  end
end

local writes = {
  [ICR] = function(v, data)
    write_register(v, ICR, data)
    send_ipi(v, data, floor(read_register(v, ICR_HIGH) / 0x1000000))
  end,
  [SELF] = function(v, data) send_ipi(v, data % 0x100 + TO_SELF * SHORTHAND, 0) end,
  [EOI] = function(v)
    local vector = end_interrupt(v)
    if not vector then return end
    ioapic.eoi(vector)
    if has(v.apic_controls, c.APIC_CTRL_IOAPIC_EOI) then
      v.info = { code = c.VM_EXITINFO_IOAPIC_EOI, vector = vector }
    end
  end,
}

-- In x2APIC mode, a write to what is no writable register is a #GP; in xAPIC mode it is nothing.
local function write_other(v)
  if u64.band(v.cpu.msr[APIC_BASE], X2APIC) ~= u64.exact(0) then
    v.info = { code = c.VM_EXITINFO_INJECT_EXCP }
  end
end

-- Two results: true, and whether nothing is left for the program.
local function apic_write(v, offset, data)
  local ok, message, code = is_register(offset)
  if not ok then return nil, message, code end
  if data > 0xffffffff then
    return fail("bad_argument", "a register has 32 bits, not 0x%x", data)
  end
  v.info = { code = c.VM_EXITINFO_VMX }
  ok, message, code = try(function()
    if writes[offset] then
      writes[offset](v, data)
    elseif writable[offset] then
      write_register(v, offset, data)
    else
      write_other(v)
    end
    return true
  end)
  if not ok then return nil, message, code end
  return true, v.info.code == c.VM_EXITINFO_VMX
end

local function control(v, flags)
  if flags > 15 then return fail("bad_argument", "there are no controls 0x%x", flags) end
  if flags % c.APIC_CTRL_IOAPIC_EOI ~= 0 then
    return fail("unsupported", "KVM cannot do 0x%x: of the controls of a local APIC it has "
      .. "IOAPIC_EOI", flags)
  end
  v.apic_controls = flags
  return true
end

local function trigger_entry(v, flavor)
  if flavor ~= c.APIC_LVT_FLAVOR_TIMER then
    return fail("bad_argument", "there is no entry %d to trigger", flavor)
  end
  local fired, message, code = try(v.cpu.apic.fire_timer, v.cpu.apic)
  if fired == nil then return nil, message, code end
  return true
end

-- ---- The load-store cache ----

local function is_instruction(length)
  if length >= 1 and length <= 15 then return true end
  return fail("bad_argument", "no instruction has %d bytes", length)
end

local function enter_register(_, _, _, length, _, register)
  if register < c.X86_RAX or register > c.X86_R15 then
    return fail("bad_argument", "register %d is no general one", register)
  end
  return is_instruction(length)
end

-- ---- What there is to know beside the VMCS ----

-- The details of an exit information of that code.
local function details(code, fn)
  return function(v, ...)
    if v.info and v.info.code == code then return fn(v.info, ...) end
    return fail("error", "there is no such information about vCPU %d's last exit or APIC write",
      v.id)
  end
end

local function list_of(info, count)
  local list = {}
  for i = 1, count do list[i] = info.reached[i - 1] or false end
  return list, info.address
end

return function(hv)
  -- A call that needs VM_ACCEL_APIC.
  local function define(name, arguments, fn)
    call.define(hv, name, arguments, function(...)
      if machine.has(c.VM_ACCEL_APIC) then return fn(...) end
      return fail("unsupported", "hv.%s: the VM was made without VM_ACCEL_APIC: its interrupt "
        .. "controllers are the program's", name)
    end)
  end

  --- Sends an interrupt, vector 16 to 255, to the local APIC of a vCPU, any coroutine's;
  --- APIC_*_TRIGGER.
  define("vm_lapic_set_intr", { "vm", "id", "vector", "trigger" }, set_interrupt)
  --- Sends a message-signalled interrupt; the address is whole, from 0xfee00000 on.
  define("vm_lapic_msi", { "vm", "address", "data" }, send_message)
  --- Sends what a redirection entry (u64) of an IOAPIC of the program's says.
  define("vm_send_ioapic_intr", { "vm", "value" }, ioapic.send)
  --- The frequency of the local APICs' timers, 16 MHz to 2 GHz, before the first vCPU.
  define("vm_set_apic_bus_freq", { "vm", "hertz" }, function(hertz)
    if next(machine.vcpus) then return fail("busy", "the VM has vCPUs already") end
    local done, message, code = try(machine.vm.apic_frequency, machine.vm, hertz)
    if not done then return nil, message, code end
    return true
  end)

  --- Levels of a pin of the IOAPIC, 0 to 31; an access to its page at 0xfec00000; its state.
  define("vm_ioapic_assert_irq", { "vm", "line" }, ioapic.set(true))
  define("vm_ioapic_deassert_irq", { "vm", "line" }, ioapic.set(false))
  define("vm_ioapic_pulse_irq", { "vm", "line" }, ioapic.set(true, false))
  define("vm_ioapic_read", { "vm", "gpa" }, ioapic.read)
  define("vm_ioapic_write", { "vm", "gpa", "data" }, ioapic.write)
  define("vm_ioapic_get_state", { "vm" }, ioapic.get_state)
  define("vm_ioapic_put_state", { "vm", "state" }, ioapic.put_state)

  --- Levels of a line of the PICs, 0 to 15 without 2; an access to one of their ports, 0x20, 0x21,
  --- 0xa0, 0xa1, 0x4d0 and 0x4d1; the state of one of the two, with Apple's names. What they
  --- request goes to LINT0 of vCPU 0.
  define("vm_atpic_assert_irq", { "vm", "line" }, atpic.set(true))
  define("vm_atpic_deassert_irq", { "vm", "line" }, atpic.set(false))
  define("vm_atpic_port_read", { "vm", "addr" }, atpic.read)
  define("vm_atpic_port_write", { "vm", "addr", "data" }, atpic.write)
  define("vm_atpic_get_state", { "vm", "primary" }, atpic.get_state)
  define("vm_atpic_put_state", { "vm", "state", "primary" }, atpic.put_state)
  --- Lets the vCPU take an interrupt of the PICs, when they request one and it accepts one. "busy"
  --- while one is queued.
  define("vcpu_inject_extint", { "vcpu" }, atpic.inject)

  --- The register of the local APIC at an offset; and a write with all that this has as a
  --- consequence: true, and false if vcpu_exit_info has something for the program.
  define("vcpu_apic_read", { "vcpu", "offset" }, function(v, offset)
    local ok, message, code = is_register(offset)
    if not ok then return nil, message, code end
    return try(read_register, v, offset)
  end)
  define("vcpu_apic_write", { "vcpu", "offset", "data" }, apic_write)
  --- Its whole state as a table with Apple's names; and such a table put back.
  define("vcpu_apic_get_state", { "vcpu" }, states.apic_get)
  define("vcpu_apic_put_state", { "vcpu", "state" }, states.apic_put)
  --- How it behaves (APIC_CTRL_*): with IOAPIC_EOI, the end of a level interrupt is an exit.
  define("vcpu_apic_ctrl", { "vcpu", "flags" }, control)
  --- Fires an entry of the local vector table, APIC_LVT_FLAVOR_TIMER, unless it is masked.
  define("vcpu_apic_trigger_lvt", { "vcpu", "flavor" }, trigger_entry)

  --- Tell of an instruction that accesses the local APIC. KVM does these by itself: the arguments
  --- are checked, and that is all.
  define("vcpu_apic_lsc_enter_r32", { "vcpu", "load", "address", "length", "cs", "register" },
    enter_register)
  define("vcpu_apic_lsc_enter_imm32", { "vcpu", "address", "length", "cs", "data" },
    function(_, _, length) return is_instruction(length) end)
  define("vcpu_apic_lsc_invalidate", { "vcpu" }, function() return true end)

  --- Where the guest finds its local APIC, in the default space or another. Where KVM has none (all
  --- but the default space with VM_ACCEL_APIC), accesses exit with VMX_REASON_APIC_ACCESS.
  call.define(hv, "vmx_vcpu_set_apic_address", { "vcpu", "gpa" }, function(v, gpa)
    return place.set(v, 0, gpa)
  end)
  call.define(hv, "vmx_vcpu_set_apic_address_space", { "vcpu", "asid", "gpa" }, place.set)

  --- What else there is to know of the last exit or vcpu_apic_write: VM_EXITINFO_*, 0 before the
  --- first. Its details are "error" if it was of another kind.
  call.define(hv, "vcpu_exit_info", { "vcpu" }, function(v) return v.info and v.info.code or 0 end)
  --- A list of `count` vCPUs, true where INIT or SIPI was sent to the one of that number (from 0 at
  --- index 1); for SIPI, the address where they start.
  define("vcpu_exit_init_ap", { "vcpu", "count" }, details(c.VM_EXITINFO_INIT_AP,
    function(info, count) return (list_of(info, count)) end))
  define("vcpu_exit_startup_ap", { "vcpu", "count" }, details(c.VM_EXITINFO_STARTUP_AP, list_of))
  --- The vector of the level interrupt that has ended.
  define("vcpu_exit_ioapic_eoi", { "vcpu" }, details(c.VM_EXITINFO_IOAPIC_EOI,
    function(info) return info.vector end))
  --- The exception that the guest is to take: vector, error code (nil for none), and whether it is
  --- a fault.
  define("vcpu_exit_inject_excp", { "vcpu" }, details(c.VM_EXITINFO_INJECT_EXCP,
    function() return VECTOR_GP, 0, true end))
  --- The register of the local APIC that the guest reads, in a space where KVM has none.
  define("vcpu_exit_apic_access_read", { "vcpu" }, details(c.VM_EXITINFO_APIC_ACCESS_READ,
    function(info) return info.value end))
end
