-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: interrupts and their controllers.

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, done, vm_of, vcpu_of = shared.fail, shared.done, shared.vm_of, shared.vcpu_of
  local u32_out = shared.u32_out
  local i64_out = ffi.new "int64_t[1]"
  local page = ffi.new "uint8_t[1024]" -- LUNA_APIC_SIZE; a chip's state has 512

  -- 1 or 0 as a boolean, or the failure.
  local function flag(status)
    if status < 0 then return fail(status) end
    return status == 1
  end

  local function number(status)
    if status < 0 then return fail(status) end
    return u32_out[0]
  end

  local function bytes(status, size)
    if status < 0 then return fail(status) end
    return ffi.string(page, size)
  end

  local function load(data, size)
    if #data ~= size then error(("%d bytes expected"):format(size), 3) end
    ffi.copy(page, data, size)
  end

  -- To one vCPU

  function M.interrupt_vector(object, vector)
    return flag(C.luna_vcpu_interrupt_vector(vcpu_of(object), vector))
  end

  function M.interrupt_waiting(object)
    return C.luna_vcpu_interrupt_waiting(vcpu_of(object))
  end

  function M.nmi(object)
    return done(C.luna_vcpu_nmi(vcpu_of(object)))
  end

  function M.smi(object)
    return done(C.luna_vcpu_smi(vcpu_of(object)))
  end

  function M.extint(object, vector)
    return done(C.luna_vcpu_extint(vcpu_of(object), vector))
  end

  function M.window(object, on)
    return done(C.luna_vcpu_window(vcpu_of(object), on))
  end

  function M.get_blocking(object)
    return number(C.luna_vcpu_get_blocking(vcpu_of(object), u32_out))
  end

  function M.set_blocking(object, blocking)
    return done(C.luna_vcpu_set_blocking(vcpu_of(object), blocking))
  end

  -- Through the VM's controllers

  function M.irq(object, line, level)
    return done(C.luna_vm_irq(vm_of(object), line, level))
  end

  function M.msi(object, address, data)
    local exact = to_u64(address)
    return flag(C.luna_vm_msi(vm_of(object), exact, data))
  end

  -- vm, a list of routes, each line, whether it is a message, address, data, chip, pin
  function M.route(object, list)
    local routes = ffi.new("luna_route[?]", #list + 1)
    for i, route in ipairs(list) do
      local r = routes[i - 1]
      r.line, r.is_message, r.address = route[1], route[2], to_u64(route[3])
      r.data, r.chip, r.pin = route[4], route[5], route[6]
    end
    return done(C.luna_vm_route(vm_of(object), routes, #list))
  end

  -- vm, line, descriptor, descriptor of the end of the interrupt or -1, 1 or 0
  function M.irqfd(object, line, fd, resample, on)
    shared.made_out[0] = on -- to take back what is not there does no harm
    return done(C.luna_vm_irqfd(vm_of(object), line, fd, resample, on))
  end

  function M.get_chip(object, chip)
    return bytes(C.luna_vm_get_chip(vm_of(object), chip, page), 512)
  end

  function M.set_chip(object, chip, state)
    load(state, 512)
    return done(C.luna_vm_set_chip(vm_of(object), chip, page))
  end

  function M.set_apic_frequency(object, hertz)
    return done(C.luna_vm_set_apic_frequency(vm_of(object), hertz))
  end

  function M.get_apic_frequency(object)
    return tonumber(C.luna_vm_apic_frequency(vm_of(object)))
  end

  -- LAPIC

  function M.get_apic(object)
    return bytes(C.luna_vcpu_get_apic(vcpu_of(object), page), 1024)
  end

  function M.set_apic(object, registers)
    load(registers, 1024)
    return done(C.luna_vcpu_set_apic(vcpu_of(object), page))
  end

  function M.read_apic(object, offset)
    return number(C.luna_vcpu_read_apic(vcpu_of(object), offset, u32_out))
  end

  function M.write_apic(object, offset, value)
    return done(C.luna_vcpu_write_apic(vcpu_of(object), offset, value))
  end

  function M.fire_timer(object)
    return flag(C.luna_vcpu_fire_timer(vcpu_of(object)))
  end

  function M.get_mp_state(object)
    return number(C.luna_vcpu_get_mp_state(vcpu_of(object), u32_out))
  end

  function M.set_mp_state(object, state)
    return done(C.luna_vcpu_set_mp_state(vcpu_of(object), state))
  end

  function M.sipi(object, vector)
    return done(C.luna_vcpu_sipi(vcpu_of(object), vector))
  end

  -- Time-stamp counter

  function M.get_tsc_frequency(object)
    return number(C.luna_vcpu_get_tsc_frequency(vcpu_of(object), u32_out))
  end

  function M.set_tsc_frequency(object, kilohertz)
    return done(C.luna_vcpu_set_tsc_frequency(vcpu_of(object), kilohertz))
  end

  function M.get_tsc_offset(object)
    local status = C.luna_vcpu_get_tsc_offset(vcpu_of(object), i64_out)
    if status < 0 then return fail(status) end
    return ffi.cast("uint64_t", i64_out[0])
  end

  function M.set_tsc_offset(object, offset)
    local signed = ffi.cast("int64_t", to_u64(offset))
    return done(C.luna_vcpu_set_tsc_offset(vcpu_of(object), signed))
  end

  function M.sync_tsc(object, value)
    local exact = to_u64(value)
    return done(C.luna_vm_sync_tsc(vm_of(object), exact))
  end
end
