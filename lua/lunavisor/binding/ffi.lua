-- SPDX-License-Identifier: MIT
-- The raw calls for LuaJIT, over ffi.load: the same ones, with the same arguments and results, as
-- native.c has for Lua 5.4. A call takes an object of the shared layer, a table whose [1] is the
-- handle made here.

local ffi = require "ffi"
local to_u64 = require "lunavisor.text.u64".exact

local floor, tonumber, type, error = math.floor, tonumber, type, error
local uint64, int64 = ffi.typeof "uint64_t", ffi.typeof "int64_t"

if not pcall(ffi.typeof, "luna_vm") then
  ffi.cdef(require "lunavisor.binding.cdef")
end

local function library_path()
  local path = os.getenv "LUNAVISOR_LIBRARY"
  if path and path ~= "" then return path end
  local stamped, found = pcall(require, "lunavisor.binding.library")
  if stamped and type(found) == "string" then
    local file = io.open(found, "rb")
    if file then
      file:close()
      return found
    end
  end
  return "liblunavisor.so.0"
end

local C = ffi.load(library_path())

local READ, WRITE = 1, 2 -- luna_access

local M = {}

-- Out-parameters, one of each: no call here is re-entered.
local u64_out, u32_out = ffi.new "uint64_t[1]", ffi.new "uint32_t[1]"
local region_out = ffi.new "luna_region[1]"
local options_in = ffi.new "luna_vcpu_options[1]"
local buffer_in = ffi.new "luna_buffer_options[1]"
local vm_in = ffi.new "luna_vm_options[1]"
local length_out = ffi.new "uint64_t[1]"
local pointer_out = {
  buffer = ffi.new "luna_buffer *[1]",
  vm = ffi.new "luna_vm *[1]",
  vcpu = ffi.new "luna_vcpu *[1]",
}

local function text(pointer)
  if pointer ~= nil then return ffi.string(pointer) end
  return nil
end

local function fail(status)
  return nil, text(C.luna_error_message()), text(C.luna_status_name(status))
end

local function done(status)
  if status < 0 then return fail(status) end
  return true
end

local function closed(kind)
  error("attempt to use a closed " .. kind, 3)
end

local function vm_of(object)
  return object[1] or closed "vm"
end

local function vcpu_of(object)
  return object[1] or closed "vcpu"
end

local function buffer_of(object)
  return object[1] or closed "buffer"
end

local release = {
  buffer = C.luna_buffer_release,
  vm = C.luna_vm_release,
  vcpu = C.luna_vcpu_release,
}

local function own(kind)
  return ffi.gc(pointer_out[kind][0], release[kind])
end

local function kind_of(handle)
  for kind in pairs(release) do
    if ffi.istype("luna_" .. kind .. " *", handle) then return kind end
  end
end

function M.close(object)
  local handle = object[1]
  if not handle then return end
  local kind = kind_of(handle)
  object[1] = false
  if kind == "buffer" then object.memory = nil end
  ffi.gc(handle, nil)
  release[kind](handle)
end

-- Library and host

function M.version()
  return text(C.luna_version())
end

function M.clock()
  return tonumber(C.luna_clock())
end

function M.live(object)
  return tonumber(C.luna_live(object))
end

function M.probe()
  return done(C.luna_probe())
end

function M.probe_name(index)
  return text(C.luna_probe_name(index))
end

function M.probe_value(index)
  local status = C.luna_probe_value(index, u64_out)
  if status < 0 then return fail(status) end
  return tonumber(u64_out[0])
end

function M.exit_name(kind)
  return text(C.luna_exit_name(kind))
end

function M.register_name(reg)
  return text(C.luna_register_name(reg))
end

function M.capability(name)
  local status = C.luna_capability(name, u64_out)
  if status < 0 then return fail(status) end
  return tonumber(u64_out[0])
end

-- Buffers

function M.buffer_open(kind, flags, size, offset, path, fd, pointer)
  local options = buffer_in[0]
  options.kind, options.flags, options.size, options.offset = kind, flags, size, offset
  options.path, options.fd = path, fd or -1
  options.pointer = pointer and ffi.cast("void *", pointer)
  local status = C.luna_buffer_open(buffer_in, pointer_out.buffer)
  if status < 0 then return fail(status) end
  return own "buffer"
end

function M.buffer_view(object, offset, size)
  local status = C.luna_buffer_view(buffer_of(object), offset, size, pointer_out.buffer)
  if status < 0 then return fail(status) end
  return own "buffer"
end

function M.buffer_id(object)
  return tonumber(C.luna_buffer_id(buffer_of(object)))
end

function M.buffer_fd(object)
  return C.luna_buffer_fd(buffer_of(object))
end

function M.buffer_page_size(object)
  return tonumber(C.luna_buffer_page_size(buffer_of(object)))
end

function M.buffer_size(object)
  return tonumber(C.luna_buffer_size(buffer_of(object)))
end

-- object.memory, a luna_memory, is what access needs; it is looked up when a buffer is first used.
local function bind(object, level)
  local handle = object[1]
  if not handle then error("attempt to use a closed buffer", level) end
  object.memory = C.luna_buffer_memory(handle)
  return object.memory
end

local function outside(memory, offset, size, level)
  if type(offset) ~= "number" or floor(offset) ~= offset then
    error(("bad offset (a whole number expected, got %s)"):format(tostring(offset)), level + 1)
  end
  error(("offset %s0x%x and size %d are outside the buffer, which has 0x%x bytes")
    :format(offset < 0 and "-" or "", math.abs(offset), size, tonumber(memory.size)), level + 1)
end

-- The memory at `offset`, of `size` bytes that the buffer has. `level` blames the method's caller.
local function bytes(object, offset, size, level)
  local memory = object.memory or bind(object, (level or 3) + 2)
  if type(offset) ~= "number" or offset < 0 or offset > tonumber(memory.size) - size
    or floor(offset) ~= offset then
    outside(memory, offset, size, (level or 3) + 1)
  end
  return memory.data + offset, memory
end

local function writable(memory, level)
  if memory.writable == 0 then error("the buffer is read-only", (level or 3) + 1) end
end

local function mark(object, memory, offset, size)
  if memory.logged[0] ~= 0 then C.luna_buffer_mark(object[1], offset, size) end
end

function M.buffer_writable(object)
  return C.luna_buffer_memory(buffer_of(object)).writable ~= 0
end

function M.buffer_mark(object, offset, size)
  C.luna_buffer_mark(buffer_of(object), offset, size)
end

-- The status of copying between `data` and a buffer whose memory may go away.
local function copy_safely(object, offset, data, size, access)
  return C.luna_buffer_copy(object[1], offset, data, size, access)
end

-- The results of a method that has none.
local function nothing(status)
  if status < 0 then return fail(status) end
end

-- The same for an integer of `size` bytes.
local function get_integer(object, offset, size)
  u64_out[0] = 0
  local status = copy_safely(object, offset, u64_out, size, READ)
  if status < 0 then return fail(status) end
  if size <= 4 then return tonumber(u64_out[0]) end
  return u64_out[0]
end

local function set_integer(object, offset, size, value)
  u64_out[0] = value
  return nothing(copy_safely(object, offset, u64_out, size, WRITE))
end

local function accessor(bits)
  local pointer = ffi.typeof("uint" .. bits .. "_t *")
  local size, limit = bits / 8, 2 ^ bits
  return function(object, offset, value)
    local memory = object.memory or bind(object, 3)
    if type(offset) ~= "number" or not (offset >= 0 and offset <= tonumber(memory.size) - size)
      or floor(offset) ~= offset then
      outside(memory, offset, size, 2)
    end
    local place = ffi.cast(pointer, memory.data + offset)
    if value == nil then
      if memory.vanishes[0] == 0 then return place[0] end
      return get_integer(object, offset, size)
    end
    if type(value) ~= "number" then value = tonumber(value) end
    if not value or value < 0 or value >= limit or floor(value) ~= value then
      error(("value %s does not fit in %d bits"):format(tostring(value), bits), 2)
    end
    writable(memory, 2)
    if memory.vanishes[0] ~= 0 then return set_integer(object, offset, size, value) end
    place[0] = value
    mark(object, memory, offset, size)
  end
end

M.u8, M.u16, M.u32 = accessor(8), accessor(16), accessor(32)

function M.u64(object, offset, value)
  local from, memory = bytes(object, offset, 8, 2)
  local place = ffi.cast("uint64_t *", from)
  if value == nil then
    if memory.vanishes[0] == 0 then return place[0] end
    return get_integer(object, offset, 8)
  end
  local exact = to_u64(value)
  if not exact then
    error(("value %s is not an exact 64-bit integer"):format(tostring(value)), 2)
  end
  writable(memory, 2)
  if memory.vanishes[0] ~= 0 then return set_integer(object, offset, 8, exact) end
  place[0] = exact
  mark(object, memory, offset, 8)
end

-- Room for what becomes a string, which LuaJIT's are all shorter than 2 GiB.
local function room(size)
  if size >= 2 ^ 31 then error("not enough memory", 0) end
  return ffi.new("uint8_t[?]", size)
end

local SPARE = 2 ^ 20
local spare -- room of that size, unless somebody has it: a finalizer may read in between

-- As a string, or appended to a string.buffer. LuaJIT looks at the bytes of a string several times:
-- a guest must not change them meanwhile.
function M.buffer_read(object, offset, size, into)
  local place, memory = bytes(object, offset, size)
  local safely = memory.vanishes[0] ~= 0
  if into and not safely then return into:putcdata(place, size) end
  local small = size <= SPARE
  local data = small and spare or room(small and SPARE or size)
  spare = nil
  local status = 0
  if safely then
    status = copy_safely(object, offset, data, size, READ)
  else
    ffi.copy(data, place, size)
  end
  local result = status == 0 and (into and into:putcdata(data, size) or ffi.string(data, size))
  if small then spare = data end
  if status < 0 then return fail(status) end
  return result
end

-- From a string or a string.buffer, which is not consumed.
function M.buffer_write(object, offset, data)
  local size, source = #data, data
  if type(data) ~= "string" then source = data:ref() end
  local place, memory = bytes(object, offset, size)
  writable(memory)
  if memory.vanishes[0] ~= 0 then
    return nothing(copy_safely(object, offset, ffi.cast("uint8_t *", source), size, WRITE))
  end
  ffi.copy(place, source, size)
  mark(object, memory, offset, size)
end

function M.buffer_fill(object, offset, size, byte)
  if type(byte) ~= "number" or byte < 0 or byte > 255 or floor(byte) ~= byte then
    error(("value %s does not fit in 8 bits"):format(tostring(byte)), 2)
  end
  local _, memory = bytes(object, offset, size)
  writable(memory)
  return nothing(C.luna_buffer_fill(object[1], offset, size, byte))
end

-- A distance that the core has found (1), or that it has not (0), or a failure.
local function found_at(status, from)
  if status < 0 then return fail(status) end
  if status == 0 then return nil end
  return from + tonumber(u64_out[0])
end

function M.buffer_find(object, offset, size, pattern)
  bytes(object, offset, size)
  return found_at(C.luna_buffer_find(object[1], offset, size, pattern, #pattern, u64_out), offset)
end

function M.buffer_copy(object, offset, source, from, size)
  bytes(source, from, size)
  local _, memory = bytes(object, offset, size)
  writable(memory)
  return nothing(C.luna_buffer_transfer(object[1], offset, source[1], from, size))
end

-- The distance of the first difference between two ranges, nil if they are equal.
function M.buffer_compare(object, offset, other, from, size)
  bytes(other, from, size)
  bytes(object, offset, size)
  return found_at(C.luna_buffer_compare(object[1], offset, other[1], from, size, u64_out), 0)
end

-- The memory as a uint8_t pointer that keeps the buffer alive: LuaJIT only.
function M.buffer_pointer(object)
  local handle = buffer_of(object)
  C.luna_buffer_retain(handle)
  return ffi.gc(C.luna_buffer_memory(handle).data, function() C.luna_buffer_release(handle) end)
end

--- The luna_buffer, for other libraries; good while the buffer is open.
function M.buffer_object(object)
  return buffer_of(object)
end

-- VMs

-- entries of the dirty rings, 0 for none; luna_irqchip; 1 for a PIT; 1 for exits of unknown MSRs
function M.vm_create(dirty_ring, irqchip, pit, unknown_msrs)
  local options = vm_in[0]
  options.dirty_ring, options.irqchip, options.pit = dirty_ring, irqchip, pit
  options.unknown_msrs = unknown_msrs
  local status = C.luna_vm_open(vm_in, pointer_out.vm)
  if status < 0 then return fail(status) end
  return own "vm"
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
  return done(C.luna_vm_update_space(vm_of(object), space, changes, #list))
end

function M.remap(object, space, gpa, buffer, offset)
  return done(C.luna_vm_remap_space(vm_of(object), space, gpa, buffer_of(buffer), offset))
end

function M.space_create(object)
  local status = C.luna_vm_space_create(vm_of(object), u32_out)
  if status < 0 then return fail(status) end
  return u32_out[0]
end

function M.space_destroy(object, space)
  return done(C.luna_vm_space_destroy(vm_of(object), space))
end

function M.space_read(object, space, gpa, size)
  local data = room(size)
  local status = C.luna_vm_copy_space(vm_of(object), space, gpa, data, size, READ)
  if status < 0 then return fail(status) end
  return ffi.string(data, size)
end

function M.space_write(object, space, gpa, data)
  return done(C.luna_vm_copy_space(vm_of(object), space, gpa, ffi.cast("char *", data), #data,
    WRITE))
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

-- First address and length of a run, false when there are no more.
function M.dirty_take(object, space, gpa, size)
  local status = C.luna_vm_dirty_take(vm_of(object), space, gpa, size, u64_out, length_out)
  if status < 0 then return fail(status) end
  if status == 0 then return false end
  return tonumber(u64_out[0]), tonumber(length_out[0])
end

-- gpa, size, buffer id, offset, rights, enforced rights, slot, flags of the next region.
function M.next_region(object, space, gpa)
  local status = C.luna_space_next(vm_of(object), space, gpa, region_out)
  if status < 0 then return fail(status) end
  local r = region_out[0]
  return tonumber(r.gpa), tonumber(r.size), tonumber(C.luna_buffer_id(r.buffer)),
    tonumber(r.offset), r.rights, r.enforced, r.slot, r.flags
end

function M.trap(object, kind, first, length)
  local status = C.luna_vm_trap(vm_of(object), kind, first, length, u32_out)
  if status < 0 then return fail(status) end
  return u32_out[0]
end

function M.untrap(object, trap)
  return done(C.luna_vm_untrap(vm_of(object), trap))
end

-- vCPUs

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

-- vcpu, deadline, answer to the open exit or nil. false, trap, offset, size of the open exit where
-- that cannot be the answer.
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

-- The further subjects, one file each: functions that add their raw calls to M.
local shared = {
  ffi = ffi, C = C, to_u64 = to_u64, text = text, fail = fail, done = done,
  vm_of = vm_of, vcpu_of = vcpu_of, buffer_of = buffer_of,
  u64_out = u64_out, u32_out = u32_out, room = room,
}
for _, part in ipairs { "state", "linear", "event", "exit", "debug", "interrupt", "thread" } do
  require("lunavisor.binding.ffi_" .. part)(M, shared)
end

return M
