-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: VMs, their spaces and traps.

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, done, new_box, filled = shared.fail, shared.done, shared.new_box, shared.filled
  local vm_of, buffer_of = shared.vm_of, shared.buffer_of
  local u64_out, made_out, room = shared.u64_out, shared.made_out, shared.room
  local tonumber, ipairs = tonumber, ipairs
  local READ, WRITE = 1, 2 -- luna_access
  local vm_in = ffi.new "luna_vm_options[1]"
  local Run = ffi.typeof "struct { uint64_t first[1], length[1]; }"

  -- entries of the dirty rings, 0 for none; luna_irqchip; 1 for a PIT; 1 for exits of unknown MSRs;
  -- luna_accelerator
  function M.vm_create(dirty_ring, irqchip, pit, unknown_msrs, accel)
    local box, place = new_box "vm"
    local options = vm_in[0]
    options.dirty_ring, options.irqchip, options.pit = dirty_ring, irqchip, pit
    options.unknown_msrs, options.accel = unknown_msrs, accel
    local status = C.luna_vm_open(vm_in, place)
    if status < 0 then return fail(status) end
    return filled("vm", box)
  end

  -- Its luna_accelerator, and why that one.
  function M.vm_accelerator(object)
    local reason = C.luna_vm_accelerator_reason(vm_of(object))
    vm_of(object) -- which has the reason
    reason = ffi.string(reason)
    return C.luna_vm_accelerator(vm_of(object)), reason
  end

  function M.map(object, space, buffer, offset, gpa, size, rights)
    return done(C.luna_vm_map_space(vm_of(object), space, buffer_of(buffer), offset, gpa, size,
      rights))
  end

  function M.unmap(object, space, gpa, size)
    return done(C.luna_vm_unmap_space(vm_of(object), space, gpa, size))
  end

  function M.protect(object, space, gpa, size, rights)
    return done(C.luna_vm_protect_space(vm_of(object), space, gpa, size, rights))
  end

  -- A list of changes, each kind, gpa, size, rights, buffer, offset.
  function M.update(object, space, list)
    local changes = ffi.new("luna_change[?]", #list + 1)
    for i, change in ipairs(list) do
      local c = changes[i - 1]
      c.kind, c.gpa, c.size, c.rights = change[1], change[2], change[3], change[4]
      c.buffer, c.offset = change[5] and buffer_of(change[5]), change[6] or 0
    end
    for _, change in ipairs(list) do -- still open
      if change[5] then buffer_of(change[5]) end
    end
    return done(C.luna_vm_update_space(vm_of(object), space, changes, #list))
  end

  function M.remap(object, space, gpa, buffer, offset)
    return done(C.luna_vm_remap_space(vm_of(object), space, gpa, buffer_of(buffer), offset))
  end

  function M.space_create(object)
    local status = C.luna_vm_space_create(vm_of(object), made_out)
    if status < 0 then return fail(status) end
    return made_out[0]
  end

  function M.space_destroy(object, space)
    return done(C.luna_vm_space_destroy(vm_of(object), space))
  end

  -- The memory is there before room is made: a guest may have said the size.
  function M.space_read(object, space, gpa, size)
    local status = C.luna_vm_copy_space(vm_of(object), space, gpa, nil, size, READ)
    if status < 0 then return fail(status) end
    local data = room(size)
    status = C.luna_vm_copy_space(vm_of(object), space, gpa, data, size, READ)
    if status < 0 then return fail(status) end
    return ffi.string(data, size)
  end

  function M.space_write(object, space, gpa, data)
    local source = ffi.cast("char *", data)
    return done(C.luna_vm_copy_space(vm_of(object), space, gpa, source, #data, WRITE))
  end

  -- An integer of `size` bytes.
  function M.space_get(object, space, gpa, size)
    u64_out[0] = 0
    local status = C.luna_vm_copy_space(vm_of(object), space, gpa, u64_out, size, READ)
    if status < 0 then return fail(status) end
    if size <= 4 then return tonumber(u64_out[0]) end
    return u64_out[0]
  end

  function M.space_set(object, space, gpa, size, value)
    u64_out[0] = to_u64(value)
    return done(C.luna_vm_copy_space(vm_of(object), space, gpa, u64_out, size, WRITE))
  end

  function M.dirty(object, space, gpa, size)
    return done(C.luna_vm_dirty_space(vm_of(object), space, gpa, size))
  end

  -- luna_dirty_flag bits; first address and length of a run, false when there are no more.
  function M.dirty_take(object, space, gpa, size, flags)
    local run = Run()
    local first, length = run.first, run.length
    local status = C.luna_vm_dirty_take(vm_of(object), space, gpa, size, flags, first, length)
    if status < 0 then return fail(status) end
    if status == 0 then return false end
    return tonumber(first[0]), tonumber(length[0])
  end

  -- The buffer of a region is borrowed. As a pointer it could not be read without an allocation,
  -- and the finalizer that this lets run could unmap it: its address is taken, in halves.
  if not pcall(function() return C.luna_buffer_id_at end) then
    ffi.cdef "uint64_t luna_buffer_id_at(uint64_t address) __asm__(\"luna_buffer_id\");"
  end
  local Words = ffi.typeof "uint32_t *"
  local at = ffi.offsetof("luna_region", "buffer") / 4

  -- gpa, size, buffer id, offset, rights, enforced rights, slot, flags of the next region.
  function M.next_region(object, space, gpa)
    local r = ffi.new "luna_region"
    local words = ffi.cast(Words, r)
    local status = C.luna_space_next(vm_of(object), space, gpa, r)
    if status < 0 then return fail(status) end
    local id = C.luna_buffer_id_at(words[at + 1] * 2 ^ 32 + words[at])
    return tonumber(r.gpa), tonumber(r.size), tonumber(id), tonumber(r.offset), r.rights,
      r.enforced, r.slot, r.flags
  end

  function M.trap(object, kind, first, length)
    local status = C.luna_vm_trap(vm_of(object), kind, first, length, made_out)
    if status < 0 then return fail(status) end
    return made_out[0]
  end

  function M.untrap(object, trap)
    return done(C.luna_vm_untrap(vm_of(object), trap))
  end
end
