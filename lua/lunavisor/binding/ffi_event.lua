-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: eventfds, coalesced writes, traps in the core, MSR exits.

return function(M, shared)
  local ffi, C = shared.ffi, shared.C
  local fail, done, to_u64 = shared.fail, shared.done, shared.to_u64
  local vm_of, vcpu_of, buffer_of = shared.vm_of, shared.vcpu_of, shared.buffer_of
  local made_out, u64_out = shared.made_out, shared.u64_out
  local event_in = ffi.new "luna_eventfd[1]"

  function M.trap_memory(vm, kind, first, length, buffer, offset)
    local status = C.luna_vm_trap_memory(vm_of(vm), kind, first, length, buffer_of(buffer), offset,
      made_out)
    if status < 0 then return fail(status) end
    return made_out[0]
  end

  function M.coalesce(vm, trap)
    return done(C.luna_vm_coalesce(vm_of(vm), trap))
  end

  local function event_of(kind, address, size, flags, value, fd)
    local event, exact = event_in[0], to_u64(value)
    event.kind, event.address, event.size = kind, address, size
    event.flags, event.value, event.fd = flags, exact, fd
    return event_in
  end

  -- vm, kind, address, size, flags, value, descriptor or -1: the descriptor
  function M.eventfd_add(vm, ...)
    local event = event_of(...)
    shared.event = event -- raw.made looks at it
    local status = C.luna_vm_eventfd_add(vm_of(vm), event)
    if status < 0 then return fail(status) end
    return event_in[0].fd
  end

  function M.eventfd_remove(vm, ...)
    local event = event_of(...)
    return done(C.luna_vm_eventfd_remove(vm_of(vm), event))
  end

  -- descriptor: how many writes
  function M.eventfd_read(fd)
    local status = C.luna_eventfd_read(fd, u64_out)
    if status < 0 then return fail(status) end
    return tonumber(u64_out[0])
  end

  function M.eventfd_write(fd, count)
    return done(C.luna_eventfd_write(fd, count))
  end

  function M.refuse(vcpu)
    return done(C.luna_vcpu_refuse(vcpu_of(vcpu)))
  end
end
