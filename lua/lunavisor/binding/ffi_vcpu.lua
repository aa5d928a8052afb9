-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: vCPUs.

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, done, own, pointer_out = shared.fail, shared.done, shared.own, shared.pointer_out
  local vm_of, vcpu_of, u64_out = shared.vm_of, shared.vcpu_of, shared.u64_out
  local tonumber, type, error = tonumber, type, error
  local uint64, int64 = ffi.typeof "uint64_t", ffi.typeof "int64_t"
  local READ = 1 -- luna_access
  local options_in = ffi.new "luna_vcpu_options[1]"

  local ALLOCATE = ffi.cast(uint64, ffi.cast(int64, -1)) -- LUNA_SYSTEM_ALLOCATE, which is a macro

  function M.vcpu_create(vm, mode, rip, rsp, system, wait)
    local options = options_in[0]
    options.mode, options.wait = mode, wait or 0
    options.rip, options.rsp = to_u64(rip), to_u64(rsp)
    options.system = system or ALLOCATE
    local status = C.luna_vcpu_create(vm_of(vm), options_in, pointer_out.vcpu)
    if status < 0 then return fail(status) end
    return own "vcpu"
  end

  local function answer_to(handle, value)
    if type(value) == "number" then -- up to 2^53 either way, exact
      return C.luna_vcpu_answer(handle, ffi.cast(int64, value))
    end
    return C.luna_vcpu_answer(handle, value)
  end

  -- The record of the last exit, which stays where it is for the life of the vCPU.
  local function record_of(object, handle)
    local record = rawget(object, "record")
    if not record then
      record = C.luna_vcpu_exit(handle)
      rawset(object, "record", record)
    end
    return record
  end

  -- What raw.run gives: kind, trap, offset, size, value and access of the exit, or the failure.
  local function exit_values(e, kind)
    if kind < 0 then return fail(kind) end
    local value = e.value
    if e.size <= 4 then value = tonumber(value) end
    return kind, e.trap, tonumber(e.offset), e.size, value, e.access
  end

  local limits = { 2 ^ 8, 2 ^ 16, 2 ^ 24, 2 ^ 32, 2 ^ 40, 2 ^ 48, 2 ^ 56 } -- by size, but for 8

  -- Whether a value can be the answer to a read of `size` bytes.
  local function is_answer(value, size)
    local limit = limits[size]
    if limit and type(value) == "number" then
      return value >= 0 and value < limit and value % 1 == 0
    end
    local exact = to_u64(value)
    return exact ~= nil and (not limit or exact < ffi.cast(uint64, limit))
  end

  -- Gives the answer to the open exit; false if it cannot be one.
  local function give(e, handle, answer)
    if e.access == READ and not is_answer(answer, e.size) then return false end
    answer_to(handle, answer)
    return true
  end

  local function bad_answer(e)
    return false, e.trap, tonumber(e.offset), e.size
  end

  -- vcpu, deadline, answer to the open exit or nil. false, trap, offset, size of the open exit
  -- where that cannot be the answer.
  function M.run(object, deadline, answer)
    local handle = vcpu_of(object)
    local e = record_of(object, handle)
    if answer ~= nil and not give(e, handle, answer) then return bad_answer(e) end
    return exit_values(e, C.luna_vcpu_run(handle, deadline))
  end

  -- The same for one instruction.
  function M.step(object, deadline, answer)
    local handle = vcpu_of(object)
    local e = record_of(object, handle)
    if answer ~= nil and not give(e, handle, answer) then return bad_answer(e) end
    return exit_values(e, C.luna_vcpu_step(handle, deadline))
  end

  function M.answer(object, value)
    local status = answer_to(vcpu_of(object), value or 0)
    if status < 0 then return fail(status) end
  end

  function M.retry(object)
    return done(C.luna_vcpu_retry(vcpu_of(object)))
  end

  -- The kind of a further exit, or 0.
  function M.finish(object)
    local kind = C.luna_vcpu_finish(vcpu_of(object))
    if kind < 0 then return fail(kind) end
    return kind
  end

  function M.interrupt(object)
    C.luna_vcpu_interrupt(vcpu_of(object))
  end

  function M.disarm(object)
    C.luna_vcpu_disarm(vcpu_of(object))
  end

  function M.vcpu_id(object)
    return C.luna_vcpu_id(vcpu_of(object))
  end

  function M.vcpu_system(object)
    return tonumber(C.luna_vcpu_system(vcpu_of(object)))
  end

  function M.vcpu_space(object)
    return C.luna_vcpu_space(vcpu_of(object))
  end

  function M.set_space(object, space, flags)
    return done(C.luna_vcpu_set_space(vcpu_of(object), space, flags))
  end

  function M.inject(object, vector, error_code, address)
    return done(C.luna_vcpu_inject(vcpu_of(object), vector, error_code, to_u64(address)))
  end

  function M.vcpu_exits(object)
    return tonumber(C.luna_vcpu_exits(vcpu_of(object)))
  end

  function M.exit(object)
    local e = C.luna_vcpu_exit(vcpu_of(object))
    local data = {}
    for i = 1, e.data_count do data[i] = e.data[i - 1] end
    return {
      kind = e.kind, trap = e.trap, address = e.address, offset = tonumber(e.offset),
      value = e.value, size = e.size, access = e.access, reason = e.reason,
      space = e.space, suberror = e.suberror, vector = e.vector, error_code = e.error_code,
      count = e.count, instruction = ffi.string(e.instruction, e.instruction_size), data = data,
    }
  end

  function M.get(object, reg)
    local status = C.luna_vcpu_get(vcpu_of(object), reg, u64_out)
    if status < 0 then return fail(status) end
    return u64_out[0]
  end

  function M.set(object, reg, value)
    local exact = to_u64(value)
    if not exact then
      error(("value %s is not an exact 64-bit integer"):format(tostring(value)), 3)
    end
    return done(C.luna_vcpu_set(vcpu_of(object), reg, exact))
  end
end
