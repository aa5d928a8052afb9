-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: breakpoints and single steps.

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, done, vcpu_of = shared.fail, shared.done, shared.vcpu_of
  local record_of, made_out = shared.record_of, shared.made_out
  local U64 = ffi.typeof "uint64_t[1]"
  local NOT_FOUND = tonumber(C.LUNA_ERROR_NOT_FOUND)

  -- vcpu, kind, gva, size: its number
  function M.break_set(object, kind, gva, size)
    local exact = to_u64(gva)
    local status = C.luna_vcpu_break(vcpu_of(object), kind, exact, size, made_out)
    if status < 0 then return fail(status) end
    return made_out[0]
  end

  function M.break_clear(object, number)
    return done(C.luna_vcpu_unbreak(vcpu_of(object), number))
  end

  -- vcpu, whether the gpa is wanted: the linear address of the next instruction, and its gpa or nil
  function M.place(object, both)
    local gva, gpa = U64(), both and U64() or nil
    local status = C.luna_vcpu_place(vcpu_of(object), gva, gpa)
    if status < 0 and status ~= NOT_FOUND then return fail(status) end
    return gva[0], gpa and status == 0 and tonumber(gpa[0]) or nil
  end

  -- the number of the breakpoint that the vCPU stands at, 0 for none, and DR6
  function M.break_met(object)
    local e = ffi.cast("luna_exit *", record_of(object))
    vcpu_of(object)
    return e.breakpoint, e.dr6
  end
end
