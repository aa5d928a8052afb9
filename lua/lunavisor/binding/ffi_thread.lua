-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: vCPUs on threads of their own.

return function(M, shared)
  local ffi, C = shared.ffi, shared.C
  local fail, done, vm_of, vcpu_of = shared.fail, shared.done, shared.vm_of, shared.vcpu_of
  local tonumber = tonumber
  local vcpu_out = ffi.new "luna_vcpu *[1]"

  function M.start(object)
    return done(C.luna_vcpu_start(vcpu_of(object)))
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

  -- vm, deadline: kind, trap, offset, size, value, access, number of the vCPU; 0 where there is
  -- none; nil, message, status name, number of the vCPU where its run failed
  function M.next(object, deadline)
    local kind = C.luna_vm_next(vm_of(object), deadline, vcpu_out)
    local vcpu = vcpu_out[0]
    if kind > 0 then
      local e = C.luna_vcpu_exit(vcpu)
      local value = e.value
      if e.size <= 4 then value = tonumber(value) end
      return kind, e.trap, tonumber(e.offset), e.size, value, e.access, C.luna_vcpu_id(vcpu)
    end
    if kind == 0 then return 0 end
    local _, message, code = fail(kind)
    if vcpu == nil then return nil, message, code end
    return nil, message, code, C.luna_vcpu_id(vcpu)
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
