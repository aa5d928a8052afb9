-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: vCPUs.

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, done, new_box, filled = shared.fail, shared.done, shared.new_box, shared.filled
  local vm_of, vcpu_of, u64_out = shared.vm_of, shared.vcpu_of, shared.u64_out
  local tonumber, type, error = tonumber, type, error
  local uint64, int64 = ffi.typeof "uint64_t", ffi.typeof "int64_t"
  local READ = 1 -- luna_access
  local options_in = ffi.new "luna_vcpu_options[1]"

  local ALLOCATE = ffi.cast(uint64, ffi.cast(int64, -1)) -- LUNA_SYSTEM_ALLOCATE, which is a macro

  function M.vcpu_create(vm, mode, rip, rsp, system, wait)
    local box, place = new_box "vcpu"
    local options, exact_rip, exact_rsp = options_in[0], to_u64(rip), to_u64(rsp)
    options.mode, options.wait = mode, wait or 0
    options.rip, options.rsp = exact_rip, exact_rsp
    options.system = system or ALLOCATE
    local status = C.luna_vcpu_create(vm_of(vm), options_in, place)
    if status < 0 then return fail(status) end
    return filled("vcpu", box)
  end

  -- The front of luna_exit, in halves: to read 64 bits allocates, and the finalizer that this lets
  -- run could close the vCPU.
  local Head = ffi.typeof [[struct {
    uint32_t kind, trap;
    uint64_t address;
    uint32_t offset, offset_high;
    union { uint64_t value; uint32_t low; };
    uint32_t size, access;
  }]]
  assert(ffi.offsetof(Head, "access") == ffi.offsetof("luna_exit", "access"))
  local Record = ffi.typeof("$ *", Head)

  -- The record of the last exit, which stays where it is for the life of the vCPU. To be read when
  -- vcpu_of has let the object pass.
  local function record_of(object)
    local record = rawget(object, "record")
    if not record then
      record = ffi.cast(Record, C.luna_vcpu_exit(vcpu_of(object)))
      rawset(object, "record", record)
    end
    return record
  end

  -- What raw.run gives: kind, trap, offset, size, value and access of the exit, or the failure.
  local function exit_values(e, kind)
    if kind < 0 then return fail(kind) end
    local trap, offset, size, access = e.trap, e.offset_high * 2 ^ 32 + e.offset, e.size, e.access
    if size <= 4 then return kind, trap, offset, size, e.low, access end
    return kind, trap, offset, size, e.value, access
  end

  shared.record_of, shared.exit_values = record_of, exit_values

  local limits = { 2 ^ 8, 2 ^ 16, 2 ^ 24, 2 ^ 32, 2 ^ 40, 2 ^ 48, 2 ^ 56 } -- by size, but for 8

  -- The answer to a read of `size` bytes as C takes it, or nil.
  local function answer_of(value, size)
    local limit = limits[size]
    if type(value) == "number" and value >= 0 then
      if value > 2 ^ 53 or limit and value >= limit or value % 1 ~= 0 then return nil end
      return ffi.cast(int64, value)
    end
    local exact = to_u64(value)
    if exact ~= nil and limit and exact >= ffi.cast(uint64, limit) then return nil end
    return exact
  end

  -- Gives the answer to the open exit; false if it cannot be one.
  local function give(e, object, answer)
    vcpu_of(object)
    if e.access ~= READ then
      C.luna_vcpu_answer(vcpu_of(object), 0)
      return true
    end
    local value = answer_of(answer, e.size)
    if value == nil then return false end
    C.luna_vcpu_answer(vcpu_of(object), value)
    return true
  end

  local function bad_answer(e, object)
    vcpu_of(object)
    return false, e.trap, e.offset_high * 2 ^ 32 + e.offset, e.size
  end

  -- vcpu, deadline, answer to the open exit or nil. false, trap, offset, size of the open exit
  -- where that cannot be the answer.
  function M.run(object, deadline, answer)
    local e = record_of(object)
    if answer ~= nil and not give(e, object, answer) then return bad_answer(e, object) end
    return exit_values(e, C.luna_vcpu_run(vcpu_of(object), deadline))
  end

  -- The same for a vCPU that is started and has no thread; 0 where it cannot be run here now.
  function M.run_here(object, deadline, answer)
    local e = record_of(object)
    if answer ~= nil and not give(e, object, answer) then return bad_answer(e, object) end
    local kind = C.luna_vcpu_run_here(vcpu_of(object), deadline)
    if kind == 0 then return 0, 0 end
    return exit_values(e, kind)
  end

  -- As run, for one instruction.
  function M.step(object, deadline, answer)
    local e = record_of(object)
    if answer ~= nil and not give(e, object, answer) then return bad_answer(e, object) end
    return exit_values(e, C.luna_vcpu_step(vcpu_of(object), deadline))
  end

  function M.answer(object, value)
    local exact = to_u64(value or 0)
    local status = C.luna_vcpu_answer(vcpu_of(object), exact)
    if status < 0 then return fail(status) end
  end

  function M.retry(object)
    return done(C.luna_vcpu_retry(vcpu_of(object)))
  end

  function M.drop(object)
    return done(C.luna_vcpu_drop(vcpu_of(object)))
  end

  -- Whether the last exit waits for an answer.
  function M.exit_open(object)
    return C.luna_vcpu_open(vcpu_of(object)) ~= 0
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
    local exact = to_u64(address)
    return done(C.luna_vcpu_inject(vcpu_of(object), vector, error_code, exact))
  end

  function M.vcpu_exits(object)
    return tonumber(C.luna_vcpu_exits(vcpu_of(object)))
  end

  function M.exit(object)
    local e, record, data = ffi.new "luna_exit", record_of(object), {}
    vcpu_of(object)
    ffi.copy(e, record, ffi.sizeof(e))
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
