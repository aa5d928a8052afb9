-- SPDX-License-Identifier: MIT
-- The raw calls for LuaJIT, over ffi.load: the same ones, with the same arguments and results, as
-- native.c has for Lua 5.4. A call takes an object of the shared layer, a table whose [1] is the
-- handle made here.

local ffi = require "ffi"
local to_u64 = require "lunavisor.text.u64".exact

local tonumber, type, error = tonumber, type, error

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

local M = {}

-- Out-parameters, one of each: no call here is re-entered.
local u64_out, u32_out = ffi.new "uint64_t[1]", ffi.new "uint32_t[1]"
local pointer_out = {
  buffer = ffi.new "luna_buffer *[1]",
  vm = ffi.new "luna_vm *[1]",
  vcpu = ffi.new "luna_vcpu *[1]",
}

-- Room for what becomes a string, which LuaJIT's are all shorter than 2 GiB.
local function room(size)
  if size >= 2 ^ 31 then error("not enough memory", 0) end
  return ffi.new("uint8_t[?]", size)
end

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

-- The further subjects, one file each: functions that add their raw calls to M.
local shared = {
  ffi = ffi, C = C, to_u64 = to_u64, text = text, fail = fail, done = done, own = own,
  vm_of = vm_of, vcpu_of = vcpu_of, buffer_of = buffer_of,
  pointer_out = pointer_out, u64_out = u64_out, u32_out = u32_out, room = room,
}
for _, part in ipairs {
  "buffer", "space", "vcpu", "state", "linear", "event", "exit", "debug", "interrupt", "thread",
} do
  require("lunavisor.binding.ffi_" .. part)(M, shared)
end

return M
