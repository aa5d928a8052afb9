-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: vCPUs on threads of their own.

return function(M, shared)
  local ffi, C = shared.ffi, shared.C
  local fail, done, vm_of, vcpu_of = shared.fail, shared.done, shared.vm_of, shared.vcpu_of
  local record_of, exit_values = shared.record_of, shared.exit_values
  local tonumber = tonumber
  local vcpu_out = ffi.new "luna_vcpu *[1]"

  -- The vCPUs that were started, by address: luna_vm_next gives one as a pointer, which cannot be
  -- read without an allocation, and the finalizer that this lets run could close the vCPU.
  local started = setmetatable({}, { __mode = "v" })
  local vcpu_low = ffi.cast("uint32_t *", vcpu_out)

  local function note(object)
    local address = tonumber(ffi.cast("uintptr_t", vcpu_of(object)))
    started[address] = object
    record_of(object)
  end

  function M.start(object)
    note(object)
    return done(C.luna_vcpu_start(vcpu_of(object)))
  end

  function M.start_here(object)
    note(object)
    return done(C.luna_vcpu_start_here(vcpu_of(object)))
  end

  -- Whether it is started and has no thread.
  function M.here(object)
    return C.luna_vcpu_here(vcpu_of(object)) ~= 0
  end

  function M.stop(object)
    return done(C.luna_vcpu_stop(vcpu_of(object)))
  end

  function M.pause(object)
    return done(C.luna_vcpu_pause(vcpu_of(object)))
  end

  function M.resume(object)
    return done(C.luna_vcpu_resume(vcpu_of(object)))
  end

  function M.started(object)
    return C.luna_vcpu_started(vcpu_of(object)) ~= 0
  end

  local function with_id(id, kind, trap, offset, size, value, access)
    return kind, trap, offset, size, value, access, id
  end

  -- vm, deadline: kind, trap, offset, size, value, access, number of the vCPU; 0 where there is
  -- none; nil, message, status name, number of the vCPU where its run failed
  function M.next(object, deadline)
    local kind = C.luna_vm_next(vm_of(object), deadline, vcpu_out)
    if kind == 0 then return 0 end
    local vcpu = started[vcpu_low[1] * 2 ^ 32 + vcpu_low[0]]
    if not vcpu then return fail(kind) end
    local id = C.luna_vcpu_id(vcpu_of(vcpu))
    if kind > 0 then return with_id(id, exit_values(record_of(vcpu), kind)) end
    local _, message, code = fail(kind)
    return nil, message, code, id
  end

  -- vcpu, answer to the open exit or nil
  function M.go(object, answer)
    if answer ~= nil then M.answer(object, answer) end
    return done(C.luna_vcpu_go(vcpu_of(object)))
  end

  function M.vm_fd(object)
    local fd = C.luna_vm_fd(vm_of(object))
    if fd < 0 then return fail(fd) end
    return fd
  end

  function M.alarm(object, moment)
    return done(C.luna_vm_alarm(vm_of(object), moment))
  end
end
