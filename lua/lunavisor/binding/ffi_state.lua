-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: the state of a vCPU beyond its numbered registers.

return function(M, shared)
  local ffi, C, fail, done, vcpu_of = shared.ffi, shared.C, shared.fail, shared.done, shared.vcpu_of
  local u64_out, u32_out, to_u64 = shared.u64_out, shared.u32_out, shared.to_u64
  local bytes = ffi.typeof "uint8_t[?]"
  local size_out = ffi.new "size_t[1]"
  local size_low = ffi.cast("uint32_t *", size_out) -- below 4 GiB; to read it allocates nothing
  local room, room_size = bytes(16384), 16384 -- for a state; grows

  function M.get_vector(object, kind, index, size)
    local status = C.luna_vcpu_get_vector(vcpu_of(object), kind, index, room, size)
    if status < 0 then return fail(status) end
    return ffi.string(room, size)
  end

  function M.set_vector(object, kind, index, data)
    return done(C.luna_vcpu_set_vector(vcpu_of(object), kind, index, data, #data))
  end

  function M.get_xsave(object)
    local size = C.luna_vcpu_xsave_size(vcpu_of(object))
    local area = bytes(size)
    local status = C.luna_vcpu_get_xsave(vcpu_of(object), area, size)
    if status < 0 then return fail(status) end
    return ffi.string(area, size)
  end

  function M.set_xsave(object, data)
    return done(C.luna_vcpu_set_xsave(vcpu_of(object), data, #data))
  end

  function M.get_msr(object, index)
    local status = C.luna_vcpu_get_msr(vcpu_of(object), index, u64_out)
    if status < 0 then return fail(status) end
    return u64_out[0]
  end

  function M.set_msr(object, index, value)
    local exact = to_u64(value)
    return done(C.luna_vcpu_set_msr(vcpu_of(object), index, exact))
  end

  function M.msr_name(index)
    return shared.text(C.luna_msr_name(index))
  end

  function M.msr_find(name)
    local status = C.luna_msr_find(name, u32_out)
    if status < 0 then return fail(status) end
    return u32_out[0]
  end

  -- A list of tables with leaf, subleaf or nil, eax, ebx, ecx, edx.
  function M.cpuid(object)
    local list, answer = {}, ffi.new "luna_cpuid"
    while C.luna_vcpu_cpuid_next(vcpu_of(object), #list, answer) == 0 do
      list[#list + 1] = { leaf = answer.leaf, subleaf = answer.indexed ~= 0 and answer.subleaf
        or nil, eax = answer.eax, ebx = answer.ebx, ecx = answer.ecx, edx = answer.edx }
    end
    return list
  end

  function M.set_cpuid(object, list)
    local answers = ffi.new("luna_cpuid[?]", #list + 1)
    for i, from in ipairs(list) do
      local to = answers[i - 1]
      to.leaf, to.indexed, to.subleaf = from.leaf, from.subleaf and 1 or 0, from.subleaf or 0
      to.eax, to.ebx, to.ecx, to.edx = from.eax, from.ebx, from.ecx, from.edx
    end
    return done(C.luna_vcpu_set_cpuid(vcpu_of(object), answers, #list))
  end

  function M.save(object)
    size_out[0] = room_size
    local status = C.luna_vcpu_save(vcpu_of(object), room, size_out)
    if status < 0 and size_low[0] > room_size then
      local size = size_low[0]
      local larger = bytes(size) -- a finalizer that saves another finds both old, or both new
      room, room_size = larger, size
      size_out[0] = room_size
      status = C.luna_vcpu_save(vcpu_of(object), room, size_out)
    end
    if status < 0 then return fail(status) end
    return ffi.string(room, size_low[0])
  end

  function M.restore(object, state)
    return done(C.luna_vcpu_restore(vcpu_of(object), state, #state))
  end

  function M.check(object)
    return done(C.luna_vcpu_check(vcpu_of(object)))
  end
end
