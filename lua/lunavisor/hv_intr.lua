-- SPDX-License-Identifier: MIT
-- The Hypervisor framework's calls for interrupts: function(hv, shared). The local APICs are KVM's
-- with HV_VM_ACCEL_APIC; an I/O APIC and PICs are the script's.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local u64 = require "lunavisor.u64"

local floor = math.floor

return function(hv, shared)
  local state, fail, result = shared.state, shared.fail, shared.result

  local function accelerated()
    if shared.has(state.options, hv.VM_ACCEL_APIC) then return true end
    return fail(hv.UNSUPPORTED, "the VM was made without HV_VM_ACCEL_APIC")
  end

  local function vm_of()
    local vm, message, code = shared.vm()
    if not vm then return nil, message, code end
    local yes
    yes, message, code = accelerated()
    if not yes then return nil, message, code end
    return vm
  end

  local function vcpu_of(id)
    local vcpu, message, code = shared.vcpu(id)
    if not vcpu then return nil, message, code end
    local yes
    yes, message, code = accelerated()
    if not yes then return nil, message, code end
    return vcpu
  end

  -- ---- Messages ----

  local MESSAGES = 0xfee00000
  local LEVEL = 0xc000 -- level-triggered, asserted

  local function send(vm, address, data)
    local taken, message, code = raw.msi(vm, u64(address), data)
    if taken == nil then return result(nil, message, code) end
    return true
  end

  --- Sends a fixed interrupt to the local APIC of a vCPU.
  function hv.vm_lapic_set_intr(id, vector, trigger)
    vector = check.whole("hv.vm_lapic_set_intr: vector", vector, 0, 255)
    local vm, message, code = vm_of()
    if not vm then return nil, message, code end
    local vcpu
    vcpu, message, code = shared.vcpu(id)
    if not vcpu then return nil, message, code end
    trigger = trigger or hv.APIC_EDGE_TRIGGER
    local level = trigger == hv.APIC_LEVEL_TRIGGER
    if trigger == hv.APIC_EDGE_TRIGGER_AEOI then
      return fail(hv.UNSUPPORTED, "KVM's local APICs do not end interrupts by themselves")
    elseif vector < 16 or not (level or trigger == hv.APIC_EDGE_TRIGGER) then
      return fail(hv.BAD_ARGUMENT, "no interrupt has vector %d and trigger %s", vector,
        tostring(trigger))
    end
    return send(vm, MESSAGES + id * 0x1000, vector + (level and LEVEL or 0))
  end

  --- Sends a message-signalled interrupt.
  function hv.vm_lapic_msi(address, data)
    address = check.whole("hv.vm_lapic_msi: address", address, 0)
    data = check.whole("hv.vm_lapic_msi: data", data, 0, 2 ^ 32 - 1)
    local vm, message, code = vm_of()
    if not vm then return nil, message, code end
    if floor(address / 0x100000) ~= MESSAGES / 0x100000 then
      return fail(hv.BAD_ARGUMENT, "0x%x is no address of messages", address)
    end
    return send(vm, address, data)
  end

  --- Sends what a redirection entry (u64) of an I/O APIC says.
  function hv.vm_send_ioapic_intr(entry)
    entry = shared.u64("hv.vm_send_ioapic_intr: entry", entry)
    local vm, message, code = vm_of()
    if not vm then return nil, message, code end
    local target = u64.tonumber(u64.rshift(entry, 56))
    local low = u64.tonumber(u64.band(entry, 0xffff))
    local logical = floor(low / 0x800) % 2
    return send(vm, MESSAGES + target * 0x1000 + logical * 4,
      low % 0x800 + (low >= 0x8000 and LEVEL or 0))
  end

  --- The frequency of the local APICs' timers, before the first vCPU.
  function hv.vm_set_apic_bus_freq(hertz)
    hertz = check.whole("hv.vm_set_apic_bus_freq: hertz", hertz, 0)
    local vm, message, code = vm_of()
    if not vm then return nil, message, code end
    if next(state.vcpus) then return fail(hv.BUSY, "the VM has vCPUs already") end
    return result(raw.set_apic_frequency(vm, hertz))
  end

  -- ---- A vCPU's local APIC ----

  local function check_offset(offset)
    if type(offset) == "number" and offset >= 0 and offset < 0x400 and offset % 16 == 0 then
      return true
    end
    return fail(hv.BAD_ARGUMENT, "a local APIC has no register at %s", tostring(offset))
  end

  --- A register of its page.
  function hv.vcpu_apic_read(id, offset)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    local good
    good, message, code = check_offset(offset)
    if not good then return nil, message, code end
    return result(raw.read_apic(vcpu.cpu, offset))
  end

  local ICR, EOI, SELF = 0x300, 0xb0, 0x3f0

  --- Writes one: true, and that there is nothing left to do. HV_UNSUPPORTED for EOI and those that
  --- send something: see hv.vm_lapic_msi.
  function hv.vcpu_apic_write(id, offset, value)
    value = check.whole("hv.vcpu_apic_write: value", value, 0, 2 ^ 32 - 1)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    local good
    good, message, code = check_offset(offset)
    if not good then return nil, message, code end
    if offset == ICR or offset == EOI or offset == SELF then
      return fail(hv.UNSUPPORTED, "a write to 0x%x has consequences, which are the guest's", offset)
    end
    good, message, code = raw.write_apic(vcpu.cpu, offset, value)
    if not good then return result(nil, message, code) end
    return true, true
  end

  --- Its page, as a string of 1024 bytes.
  function hv.vcpu_apic_get_state(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return result(raw.get_apic(vcpu.cpu))
  end

  function hv.vcpu_apic_put_state(id, registers)
    if type(registers) ~= "string" or #registers ~= 1024 then
      error("hv.vcpu_apic_put_state: a string of 1024 bytes expected", 2)
    end
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return result(raw.set_apic(vcpu.cpu, registers))
  end

  --- Fires the timer's entry of the local vector table, unless it is masked.
  function hv.vcpu_apic_trigger_lvt(id, flavor)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if flavor ~= hv.APIC_LVT_FLAVOR_TIMER then
      return fail(hv.BAD_ARGUMENT, "there is no entry %s to trigger", tostring(flavor))
    end
    local fired
    fired, message, code = raw.fire_timer(vcpu.cpu)
    if fired == nil then return result(nil, message, code) end
    return true
  end

  --- Ends of level interrupts exit anyway (HV_APIC_CTRL_IOAPIC_EOI); KVM has no other control.
  function hv.vcpu_apic_ctrl(id, controls)
    controls = check.whole("hv.vcpu_apic_ctrl: controls", controls, 0)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if controls ~= hv.APIC_CTRL_DEFAULT and controls ~= hv.APIC_CTRL_IOAPIC_EOI then
      return fail(controls < 16 and hv.UNSUPPORTED or hv.BAD_ARGUMENT,
        "KVM cannot do 0x%x: of the controls of a local APIC it has IOAPIC_EOI", controls)
    end
    return true
  end

  --- What there is to know of the last exit beside the VMCS: HV_VM_EXITINFO_*; 0 before the first.
  function hv.vcpu_exit_info(id)
    local vcpu, message, code = shared.vcpu(id)
    if not vcpu then return nil, message, code end
    if not vcpu.exit then return 0 end
    return vcpu.exit.kind == "eoi" and hv.VM_EXITINFO_IOAPIC_EOI or hv.VM_EXITINFO_VMX
  end

  --- The vector of the level interrupt that has ended.
  function hv.vcpu_exit_ioapic_eoi(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if not vcpu.exit or vcpu.exit.kind ~= "eoi" then
      return fail(hv.ERROR, "the last exit of vCPU %d was not for the end of an interrupt", id)
    end
    return vcpu.exit.vector
  end

  -- ---- Port notifiers ----

  local notifiers = {} -- by port, of the VM in `of`
  local of

  local function notifiers_of(vm)
    if of ~= vm then notifiers, of = {}, vm end
    return notifiers
  end

  local function check_notifier(size, fd, flags)
    local any_value = shared.has(flags, hv.ION_ANY_VALUE)
    local any_size = shared.has(flags, hv.ION_ANY_SIZE)
    if shared.has(flags, hv.ION_EXIT_FULL) then
      return fail(hv.UNSUPPORTED, "an eventfd is never full")
    elseif flags >= 16 or flags % 2 == 1 or (any_size and not any_value) or fd < 0
      or not (any_size or size == 1 or size == 2 or size == 4) then
      return fail(hv.BAD_ARGUMENT, "no notifier has size %d, descriptor %d and flags 0x%x", size,
        fd, flags)
    end
    return true
  end

  --- Lets writes to a port signal the eventfd `fd` instead of exiting.
  function hv.vm_add_pio_notifier(port, size, value, fd, flags)
    port = check.whole("hv.vm_add_pio_notifier: port", port, 0, 0xffff)
    size = check.whole("hv.vm_add_pio_notifier: size", size, 0)
    value = check.whole("hv.vm_add_pio_notifier: value", value, 0, 2 ^ 32 - 1)
    fd = check.whole("hv.vm_add_pio_notifier: fd", fd, -1)
    flags = check.whole("hv.vm_add_pio_notifier: flags", flags or 0, 0)
    local vm, message, code = shared.vm()
    if not vm then return nil, message, code end
    local good
    good, message, code = check_notifier(size, fd, flags)
    if not good then return nil, message, code end
    if notifiers_of(vm)[port] then return fail(hv.BUSY, "port 0x%x has a notifier", port) end
    local any_size = shared.has(flags, hv.ION_ANY_SIZE)
    local event
    good, event, message, code = pcall(vm.eventfd, vm, { port = port, fd = fd,
      size = not any_size and size or nil, any_size = any_size or nil,
      match = not shared.has(flags, hv.ION_ANY_VALUE) and value or nil })
    if not good then return fail(hv.BAD_ARGUMENT, "%s", event) end
    if not event then
      return fail(code == "system" and hv.BAD_ARGUMENT or hv.ERROR, "%s", message)
    end
    notifiers[port] = { event = event, said = { size, value, fd, flags } }
    return true
  end

  --- Takes it away; the arguments are those that it was added with.
  function hv.vm_remove_pio_notifier(port, size, value, fd, flags)
    port = check.whole("hv.vm_remove_pio_notifier: port", port, 0, 0xffff)
    local vm, message, code = shared.vm()
    if not vm then return nil, message, code end
    local found = notifiers_of(vm)[port]
    for i, argument in ipairs { size, value, fd, flags or 0 } do
      if not found or found.said[i] ~= argument then
        return fail(hv.BAD_ARGUMENT, "port 0x%x has no such notifier", port)
      end
    end
    found.event:close()
    notifiers[port] = nil
    return true
  end
end
