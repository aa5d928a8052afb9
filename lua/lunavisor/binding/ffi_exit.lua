-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: blocks of string I/O, names of KVM's exits, time spent in the guest,
-- the last exits and exceptions.

return function(M, shared)
  local ffi, C, text, fail, done = shared.ffi, shared.C, shared.text, shared.fail, shared.done
  local vm_of, vcpu_of, record_of = shared.vm_of, shared.vcpu_of, shared.record_of
  local data_out, u64_out = ffi.new "uint8_t *[1]", shared.u64_out
  local U64 = ffi.typeof "uint64_t[1]"

  -- How many elements of a string are left, with the open one; 0 where none is open.
  function M.block_count(object)
    local e = ffi.cast("luna_exit *", record_of(object))
    return C.luna_vcpu_block(vcpu_of(object), data_out) > 0 and e.count or 0
  end

  -- The bytes of those elements.
  function M.block_read(object)
    local size = C.luna_vcpu_block(vcpu_of(object), data_out)
    local data = data_out[0]
    vcpu_of(object)
    return size > 0 and ffi.string(data, size) or ""
  end

  -- bytes: for a read, of that size, or nil.
  function M.block_answer(object, bytes)
    local size = C.luna_vcpu_block(vcpu_of(object), data_out)
    if bytes and size > 0 then
      if #bytes ~= size then error("as many bytes as the block has expected", 2) end
      local data = data_out[0]
      vcpu_of(object)
      ffi.copy(data, bytes, size)
    end
    return done(C.luna_vcpu_answer_block(vcpu_of(object)))
  end

  function M.reason_name(reason)
    return text(C.luna_reason_name(reason))
  end

  function M.reason_text(reason)
    return text(C.luna_reason_text(reason))
  end

  function M.account(object, on)
    return done(C.luna_vcpu_account(vcpu_of(object), on and 1 or 0))
  end

  -- Nanoseconds in the guest, and of these halted.
  function M.time(object)
    local exec, idle = U64(), U64()
    local status = C.luna_vcpu_time(vcpu_of(object), exec, idle)
    if status < 0 then return fail(status) end
    return tonumber(exec[0]), tonumber(idle[0])
  end

  local KNOWN_RIP, KNOWN_VALUE = 1, 2 -- LUNA_KNOWN_*
  local LastExits, Exceptions = ffi.typeof "luna_last_exit[?]", ffi.typeof "luna_last_exception[?]"
  local Count = ffi.typeof "uint32_t[1]"

  -- vcpu, how many at most: a list of the last exits, the oldest first.
  function M.last_exits(object, most)
    most = math.min(most, 64)
    local last, count = LastExits(most), Count()
    local status = C.luna_vcpu_last_exits(vcpu_of(object), last, most, count)
    if status < 0 then return fail(status) end
    local list = {}
    for i = 1, count[0] do
      local one = last[i - 1]
      local has_rip, has_value = one.known % 2 >= KNOWN_RIP, one.known >= KNOWN_VALUE
      list[i] = { serial = tonumber(one.serial), kind = one.kind, address = one.address,
        size = one.size, access = one.access, rip = has_rip and one.rip or nil,
        value = has_value and one.value or nil }
    end
    return list
  end

  function M.mark(object)
    C.luna_vcpu_mark(vcpu_of(object))
  end

  -- vcpu, number of a register: what was kept of it, nil where that is nothing
  function M.marked(object, reg)
    if C.luna_vcpu_marked(vcpu_of(object), reg, u64_out) < 0 then return nil end
    return u64_out[0]
  end

  local function exceptions_of(get, object, most)
    most = math.min(most, 16)
    local past, count = Exceptions(most), Count()
    local status = get(vcpu_of(object), past, most, count)
    if status < 0 then return fail(status) end
    local list = {}
    for i = 1, count[0] do
      local one = past[i - 1]
      list[i] = { serial = tonumber(one.serial), rip = one.rip, address = one.address,
        met_address = one.met_address, error = one.error, met_error = one.met_error,
        vector = one.vector, met = one.met, source = one.source, stage = one.stage, cs = one.cs,
        cpl = one.cpl, flags = one.flags }
    end
    return list
  end

  -- vcpu, how many at most: a list of the last exceptions and interrupts, the oldest first.
  function M.last_exceptions(object, most)
    return exceptions_of(C.luna_vcpu_last_exceptions, object, most)
  end

  -- The same where a triple fault was the last exit.
  function M.triple_fault(object, most)
    return exceptions_of(C.luna_vcpu_triple_fault, object, most)
  end

  function M.hypercalls(object)
    return done(C.luna_vm_hypercalls(vm_of(object)))
  end
end
