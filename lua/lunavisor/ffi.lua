-- SPDX-License-Identifier: MIT
-- The raw calls for LuaJIT, over ffi.load: the same ones, with the same arguments and results, as
-- native.c has for Lua 5.4. A call takes an object of the shared layer, a table whose [1] is the
-- handle made here.

local ffi = require "ffi"
local to_u64 = require "lunavisor.u64".exact

local floor, tonumber, type, error = math.floor, tonumber, type, error
local uint64, int64 = ffi.typeof "uint64_t", ffi.typeof "int64_t"

if not pcall(ffi.typeof, "luna_vm") then
  ffi.cdef(require "lunavisor.cdef")
end

local function library_path()
  local path = os.getenv "LUNAVISOR_LIBRARY"
  if path and path ~= "" then return path end
  local stamped, found = pcall(require, "lunavisor.library")
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

local M = {}

-- Out-parameters, one of each: no call here is re-entered.
local u64_out, u32_out = ffi.new "uint64_t[1]", ffi.new "uint32_t[1]"
local region_out = ffi.new "luna_region[1]"
local options_in = ffi.new "luna_vcpu_options[1]"
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
  if kind == "buffer" then object.data, object.length = nil, nil end
  ffi.gc(handle, nil)
  release[kind](handle)
end

function M.is_open(object)
  return object[1] and true or false
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

-- Buffers

function M.buffer_create(size)
  local status = C.luna_buffer_create(size, pointer_out.buffer)
  if status < 0 then return fail(status) end
  return own "buffer"
end

function M.buffer_id(object)
  return tonumber(C.luna_buffer_id(buffer_of(object)))
end

local function outside(object, offset, size, level)
  if not object[1] then error("attempt to use a closed buffer", level) end
  if type(offset) ~= "number" or floor(offset) ~= offset then
    error(("bad offset (a whole number expected, got %s)"):format(tostring(offset)), level)
  end
  error(("offset 0x%x and size %d are outside the buffer, which has 0x%x bytes")
    :format(offset, size, object.length), level)
end

-- object.data and object.length are what the bounds check needs, kept beside the handle when a
-- buffer is first used.
local function bind(object)
  local handle = buffer_of(object)
  object.data = ffi.cast("uint8_t *", C.luna_buffer_data(handle))
  object.length = tonumber(C.luna_buffer_size(handle))
  return object.data
end

local function bytes(object, offset, size)
  local data = object.data or bind(object)
  if type(offset) ~= "number" or offset < 0 or offset > object.length - size
    or floor(offset) ~= offset then
    outside(object, offset, size, 4)
  end
  return data + offset
end

local function accessor(bits)
  local pointer = ffi.typeof("uint" .. bits .. "_t *")
  local size, limit = bits / 8, 2 ^ bits
  return function(object, offset, value)
    local data = object.data or bind(object)
    if not (offset >= 0 and offset <= object.length - size) or floor(offset) ~= offset then
      outside(object, offset, size, 3)
    end
    local place = ffi.cast(pointer, data + offset)
    if value == nil then return place[0] end
    if type(value) ~= "number" then value = tonumber(value) end
    if not value or value < 0 or value >= limit or floor(value) ~= value then
      error(("value %s does not fit in %d bits"):format(tostring(value), bits), 2)
    end
    place[0] = value
  end
end

M.u8, M.u16, M.u32 = accessor(8), accessor(16), accessor(32)

function M.u64(object, offset, value)
  local place = ffi.cast("uint64_t *", bytes(object, offset, 8))
  if value == nil then return place[0] end
  local exact = to_u64(value)
  if not exact then
    error(("value %s is not an exact 64-bit integer"):format(tostring(value)), 2)
  end
  place[0] = exact
end

function M.buffer_read(object, offset, size)
  return ffi.string(bytes(object, offset, size), size)
end

function M.buffer_write(object, offset, data)
  ffi.copy(bytes(object, offset, #data), data, #data)
end

function M.buffer_fill(object, offset, size, byte)
  if type(byte) ~= "number" or byte < 0 or byte > 255 or floor(byte) ~= byte then
    error(("value %s does not fit in 8 bits"):format(tostring(byte)), 2)
  end
  ffi.fill(bytes(object, offset, size), size, byte)
end

ffi.cdef "void *memmem(const void *, size_t, const void *, size_t);"

function M.buffer_find(object, offset, size, pattern)
  local from = bytes(object, offset, size)
  local found = ffi.C.memmem(from, size, pattern, #pattern)
  if found == nil then return nil end
  return offset + tonumber(ffi.cast("uint8_t *", found) - from)
end

-- VMs

function M.vm_create()
  local status = C.luna_vm_create(pointer_out.vm)
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

-- gpa, size, buffer id, offset, rights, enforced rights, slot of the next region.
function M.next_region(object, space, gpa)
  local status = C.luna_space_next(vm_of(object), space, gpa, region_out)
  if status < 0 then return fail(status) end
  local r = region_out[0]
  return tonumber(r.gpa), tonumber(r.size), tonumber(C.luna_buffer_id(r.buffer)),
    tonumber(r.offset), r.rights, r.enforced, r.slot
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

function M.vcpu_create(vm, mode, rip, rsp, system)
  local options = options_in[0]
  options.mode, options.reserved = mode, 0
  options.rip, options.rsp = to_u64(rip), to_u64(rsp)
  options.system = system or ALLOCATE
  local status = C.luna_vcpu_create(vm_of(vm), options_in, pointer_out.vcpu)
  if status < 0 then return fail(status) end
  return own "vcpu"
end

-- kind, trap, offset, size, value, access
function M.run(object, deadline)
  local handle = vcpu_of(object)
  local kind = C.luna_vcpu_run(handle, deadline)
  if kind < 0 then return fail(kind) end
  local e = C.luna_vcpu_exit(handle)
  local value = e.value
  if e.size <= 4 then value = tonumber(value) end
  return kind, e.trap, tonumber(e.offset), e.size, value, e.access
end

function M.answer(object, value)
  local status
  if type(value) == "number" then -- up to 2^53 either way, exact
    status = C.luna_vcpu_answer(vcpu_of(object), ffi.cast(int64, value))
  else
    status = C.luna_vcpu_answer(vcpu_of(object), value or 0)
  end
  if status < 0 then return fail(status) end
end

function M.retry(object)
  return done(C.luna_vcpu_retry(vcpu_of(object)))
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
    suberror = e.suberror, vector = e.vector, error_code = e.error_code,
    instruction = ffi.string(e.instruction, e.instruction_size), data = data,
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

return M
