-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: guest-linear addresses and disassembly.

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local vcpu_of, fail, done, u64_out = shared.vcpu_of, shared.fail, shared.done, shared.u64_out

  local READ, WRITE = 1, 2 -- luna_access


  local function list(values, count)
    local copy = {}
    for i = 1, count do copy[i] = values[i - 1] end
    return copy
  end

  -- vcpu, gva: paging, level of the entry that is missing, whether it has a reserved bit set,
  -- rights, whether user mode has them, gpa, size of the page, entries, their gpas
  function M.translate(object, gva)
    local w, exact = ffi.new "luna_walk", to_u64(gva)
    local status = C.luna_vcpu_translate(vcpu_of(object), exact, w)
    if status < 0 then return fail(status) end
    return w.paging, w.missing, w.reserved ~= 0, w.rights, w.user ~= 0, tonumber(w.gpa),
      tonumber(w.page_size), list(w.entries, w.entry_count), list(w.entry_gpas, w.entry_count)
  end

  function M.linear_read(object, gva, size)
    local bytes, exact = shared.room(size), to_u64(gva)
    local status = C.luna_vcpu_copy(vcpu_of(object), exact, bytes, size, READ)
    if status < 0 then return fail(status) end
    return ffi.string(bytes, size)
  end

  function M.linear_write(object, gva, bytes)
    local exact, source = to_u64(gva), ffi.cast("char *", bytes)
    return done(C.luna_vcpu_copy(vcpu_of(object), exact, source, #bytes, WRITE))
  end

  -- An integer of `size` bytes.
  function M.linear_get(object, gva, size)
    local exact = to_u64(gva)
    u64_out[0] = 0
    local status = C.luna_vcpu_copy(vcpu_of(object), exact, u64_out, size, READ)
    if status < 0 then return fail(status) end
    if size <= 4 then return tonumber(u64_out[0]) end
    return u64_out[0]
  end

  function M.linear_set(object, gva, size, value)
    local exact = to_u64(gva)
    u64_out[0] = to_u64(value)
    return done(C.luna_vcpu_copy(vcpu_of(object), exact, u64_out, size, WRITE))
  end

  -- vcpu, offset in the code segment: the bytes of code there, 16, 32 or 64 bits
  function M.code(object, rip)
    local code, exact = ffi.new "luna_code", to_u64(rip)
    local status = C.luna_vcpu_code(vcpu_of(object), exact, code)
    if status < 0 then return fail(status) end
    return ffi.string(code.bytes, code.size), code.bits
  end

  -- bytes, how many of them to leave out at the front, address, bits: size and text of the first
  -- instruction
  function M.disassemble(bytes, skip, address, bits)
    local found = ffi.new "luna_instruction"
    local status = C.luna_disassemble(ffi.cast("const char *", bytes) + skip, #bytes - skip,
      to_u64(address), bits, found)
    if status < 0 then return fail(status) end
    return found.size, ffi.string(found.text)
  end
end
