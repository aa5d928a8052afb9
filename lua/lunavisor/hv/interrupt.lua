-- SPDX-License-Identifier: MIT
-- The interrupt controllers inside KVM, for a VM made with VM_ACCEL_APIC.

local u64 = require "lunavisor.u64"
local call = require "lunavisor.hv.call"
local c = require "lunavisor.hv.constants"
local machine = require "lunavisor.hv.machine"
local states = require "lunavisor.hv.state"

local fail, try, has = call.fail, call.try, call.has
local floor = math.floor

local IOAPIC_PINS, PIC_PINS = 24, 16
local MSI = 0xfee00000
local LEVEL, ASSERT = 0x8000, 0x4000 -- of a message's data (SDM Vol. 3, 11.11.2)

-- ---- Messages ----

-- Whether a local APIC took it is not told: Apple does not either.
local function send(address, data)
  local taken, message, code = try(machine.vm.msi, machine.vm, address, data)
  if taken == nil then return nil, message, code end
  return true
end

local function set_interrupt(id, vector, trigger)
  local v, message, code = machine.find(id)
  if not v then return nil, message, code end
  if vector < 16 or vector > 255 then
    return fail("bad_argument", "vector %d is no interrupt's: 16 to 255 are", vector)
  elseif trigger == c.APIC_EDGE_TRIGGER_AEOI then
    return fail("unsupported", "KVM's local APIC has no interrupts that end by themselves")
  elseif trigger > c.APIC_LEVEL_TRIGGER then
    return fail("bad_argument", "there is no trigger mode %d", trigger)
  end
  local level = trigger == c.APIC_LEVEL_TRIGGER and LEVEL + ASSERT or 0
  local address = MSI + states.apic_id(v.cpu) * 0x1000
  return send(address, vector + level)
end

-- The message that an entry of the IOAPIC's redirection table stands for (82093AA, 3.2.4).
local function send_entry(entry)
  local low = u64.tonumber(u64.band(entry, 0xffff))
  local destination = u64.tonumber(u64.rshift(entry, 56))
  local level = has(low, LEVEL) and LEVEL + ASSERT or 0
  return send(MSI + destination * 0x1000 + (has(low, 0x800) and 4 or 0), low % 0x800 + level)
end

-- ---- Lines ----

local function set_line(pins, ...)
  local levels = { ... }
  return function(line)
    if line >= pins then
      return fail("bad_argument", "there is no line %d: the last is %d", line, pins - 1)
    end
    for _, level in ipairs(levels) do
      local ok, message, code = try(machine.vm.irq, machine.vm, line, level)
      if not ok then return nil, message, code end
    end
    return true
  end
end

-- ---- Registers of a local APIC ----

local function offset_of(offset)
  if offset < 0x400 and offset % 16 == 0 then return offset end
  return fail("bad_argument", "a local APIC has no register at 0x%x", offset)
end

local function apic_read(v, offset)
  local ok, message, code = offset_of(offset)
  if not ok then return nil, message, code end
  local page
  page, message, code = try(v.cpu.apic.get, v.cpu.apic)
  if not page then return nil, message, code end
  return states.word(page, offset)
end

-- A write to these does more than change them: EOI, ICR, the timer's initial count.
local effects = { [0xb0] = true, [0x300] = true, [0x380] = true }

-- Changes the register and nothing else.
local function apic_write(v, offset, data)
  local ok, message, code = offset_of(offset)
  if not ok then return nil, message, code end
  if data > 0xffffffff then
    return fail("bad_argument", "a register has 32 bits, not 0x%x", data)
  end
  local page
  page, message, code = try(v.cpu.apic.get, v.cpu.apic)
  if not page then return nil, message, code end
  page = page:sub(1, offset) .. states.pack(data, 4) .. page:sub(offset + 5)
  ok, message, code = try(v.cpu.apic.set, v.cpu.apic, page)
  if not ok then return nil, message, code end
  return true, not effects[offset]
end

local function set_address(v, gpa)
  if gpa % 4096 ~= 0 or gpa > 2 ^ 52 then
    return fail("bad_argument", "a local APIC cannot be at gpa 0x%x: a multiple of 4096 expected",
      gpa)
  end
  return try(function()
    local flags = u64.band(v.cpu.msr[0x1b], 0xfff)
    v.cpu.msr[0x1b] = flags + u64.exact(gpa)
    return true
  end)
end

-- ---- What KVM does by itself ----

local only_apic = "KVM handles a guest's access to the local APIC by itself, and makes no exit"
local only_init = "KVM delivers INIT and SIPI by itself, and makes no exit"
local pic_ports = "KVM's PICs take port accesses of the guest alone; vm_atpic_get_state and "
  .. "put_state reach their registers"

-- By name: arguments, and the reason.
local unsupported = {
  vm_atpic_port_read = { { "vm", "line" }, pic_ports },
  vm_atpic_port_write = { { "vm", "line", "data" }, pic_ports },
  vcpu_inject_extint = { { "vcpu" }, "KVM's PICs interrupt the local APICs in KVM by themselves" },
  vcpu_exit_init_ap = { { "vcpu", "count" }, only_init },
  vcpu_exit_startup_ap = { { "vcpu", "count" }, only_init },
  vcpu_exit_inject_excp = { { "vcpu" }, "KVM injects exceptions of the local APIC by itself" },
  vcpu_exit_apic_access_read = { { "vcpu" }, only_apic },
}

-- Defines a call that needs VM_ACCEL_APIC.
local function definer(hv)
  return function(name, arguments, fn)
    call.define(hv, name, arguments, function(...)
      if machine.has(c.VM_ACCEL_APIC) then return fn(...) end
      return fail("unsupported", "hv.%s: the VM was made without VM_ACCEL_APIC", name)
    end)
  end
end

return function(hv)
  local define = definer(hv)

  for name, said in pairs(unsupported) do
    define(name, said[1], function() return fail("unsupported", said[2]) end)
  end

  --- Interrupts a vCPU, any coroutine's, by its local APIC: vector, APIC_*_TRIGGER.
  define("vm_lapic_set_intr", { "vm", "id", "vector", "trigger" }, set_interrupt)
  --- Sends a message-signalled interrupt; address and data as a device writes them.
  define("vm_lapic_msi", { "vm", "address", "data" }, send)
  --- Sends what an entry of the IOAPIC's redirection table says.
  define("vm_send_ioapic_intr", { "vm", "rte" }, send_entry)

  --- Levels of a pin of the IOAPIC, and of a line of the PICs. In KVM, 0 to 15 are both.
  define("vm_ioapic_assert_irq", { "vm", "line" }, set_line(IOAPIC_PINS, 1))
  define("vm_ioapic_deassert_irq", { "vm", "line" }, set_line(IOAPIC_PINS, 0))
  define("vm_ioapic_pulse_irq", { "vm", "line" }, set_line(IOAPIC_PINS, 1, 0))
  define("vm_atpic_assert_irq", { "vm", "line" }, set_line(PIC_PINS, 1))
  define("vm_atpic_deassert_irq", { "vm", "line" }, set_line(PIC_PINS, 0))

  --- A register of the IOAPIC as the guest reaches it, by its address: select and window.
  define("vm_ioapic_read", { "vm", "gpa" }, states.ioapic_read)
  define("vm_ioapic_write", { "vm", "gpa", "data" }, states.ioapic_write)

  --- The state of the IOAPIC: rtbl, a list of u64, irr, ioa_id, ioregsel; and such a table put
  --- back.
  define("vm_ioapic_get_state", { "vm" }, states.ioapic_get)
  define("vm_ioapic_put_state", { "vm", "state" }, states.ioapic_put)
  --- The same of a PIC: the primary (true) or the secondary.
  define("vm_atpic_get_state", { "vm", "primary" }, states.pic_get)
  define("vm_atpic_put_state", { "vm", "state", "primary" }, states.pic_put)

  --- The frequency of the local APICs' timers, 16 MHz to 2 GHz, before the first vCPU.
  define("vm_set_apic_bus_freq", { "vm", "hertz" }, function(hertz)
    if next(machine.vcpus) then return fail("busy", "the VM has vCPUs already") end
    local done, message, code = try(machine.vm.apic_frequency, machine.vm, hertz)
    if not done then return nil, message, code end
    return true
  end)

  --- A register of the local APIC by its offset; and a write that changes it alone: true, and
  --- whether nothing else is due.
  define("vcpu_apic_read", { "vcpu", "offset" }, apic_read)
  define("vcpu_apic_write", { "vcpu", "offset", "data" }, apic_write)
  --- Its whole state as a table with Apple's names; and such a table put back.
  define("vcpu_apic_get_state", { "vcpu" }, states.apic_get)
  define("vcpu_apic_put_state", { "vcpu", "state" }, states.apic_put)

  --- Flags (APIC_CTRL_*): KVM has the default alone.
  define("vcpu_apic_ctrl", { "vcpu", "flags" }, function(_, flags)
    if flags == c.APIC_CTRL_DEFAULT then return true end
    if flags > 15 then return fail("bad_argument", "there are no flags 0x%x", flags) end
    return fail("unsupported", "KVM's local APIC is set up with the VM: flags 0x%x cannot be had",
      flags)
  end)

  --- Fires an entry of the local vector table: APIC_LVT_TIMER. true, also where it is masked.
  define("vcpu_apic_trigger_lvt", { "vcpu", "flavor" }, function(v, flavor)
    if flavor ~= c.APIC_LVT_TIMER then
      return fail("bad_argument", "there is no entry %d that can be triggered", flavor)
    end
    local fired, message, code = try(v.cpu.apic.fire_timer, v.cpu.apic)
    if fired == nil then return nil, message, code end
    return true
  end)

  -- KVM decodes accesses to the local APIC itself: there is nothing to remember for it.
  local function remembered(_, rip, length)
    if length == 0 or length > 15 then
      return fail("bad_argument", "no instruction at %s has %d bytes", u64.hex(rip), length)
    end
    return true
  end
  --- Tell of an instruction that accesses the local APIC, which KVM does not need to be told.
  define("vcpu_apic_lsc_enter_r32", { "vcpu", "load", "address", "length", "cs", "register" },
    function(v, load, rip, length, _, register)
      if load > 1 or register < c.X86_RAX or register > c.X86_R15 then
        return fail("bad_argument", "register %d is none of RAX to R15", register)
      end
      return remembered(v, rip, length)
    end)
  define("vcpu_apic_lsc_enter_imm32", { "vcpu", "address", "length", "cs", "data" }, remembered)
  define("vcpu_apic_lsc_invalidate", { "vcpu" }, function() return true end)

  --- What the last exit was: VM_EXITINFO_*.
  define("vcpu_exit_info", { "vcpu" }, function(v)
    if v.exit.kind == "eoi" then return c.VM_EXITINFO_IOAPIC_EOI end
    return v.exit.kind and c.VM_EXITINFO_VMX or 0
  end)
  --- The vector of an EOI that the program's IOAPIC waits for.
  define("vcpu_exit_ioapic_eoi", { "vcpu" }, function(v)
    if v.exit.kind == "eoi" then return v.exit.exit.vector end
    return fail("error", "the last exit of vCPU %d was no EOI: KVM's IOAPIC gets them", v.id)
  end)

  --- Where the guest finds its local APIC. Works without VM_ACCEL_APIC, for RDMSR alone.
  call.define(hv, "vmx_vcpu_set_apic_address", { "vcpu", "gpa" }, set_address)
  call.define(hv, "vmx_vcpu_set_apic_address_space", { "vcpu", "asid", "gpa" },
    function(v, asid, gpa)
      if not machine.spaces[asid] then
        return fail("bad_argument", "there is no space %d", asid)
      end
      return set_address(v, floor(gpa))
    end)
end
