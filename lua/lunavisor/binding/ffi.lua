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

-- Out-parameters, one of each: nothing is allocated between a call and the look at what it put
-- there, so that no finalizer of the script can make another call meanwhile.
local u64_out, u32_out = ffi.new "uint64_t[1]", ffi.new "uint32_t[1]"
local made_out = ffi.new "uint32_t[1]" -- the number of what was made last, 0 for nothing

-- Room for what becomes a string, which LuaJIT's are all shorter than 2 GiB.
local function room(size)
  if size >= 2 ^ 31 then error("not enough memory", 0) end
  return ffi.new("uint8_t[?]", size)
end

local function text(pointer)
  if pointer ~= nil then return ffi.string(pointer) end
  return nil
end

local MESSAGE_MOST = 1024
local message_out = ffi.new("char[?]", MESSAGE_MOST)

-- The message is copied at once: a finalizer that ran meanwhile could fail with another.
local function fail(status)
  local size = C.luna_error_copy(message_out, MESSAGE_MOST)
  return nil, ffi.string(message_out, size), text(C.luna_status_name(status))
end

local function done(status)
  if status < 0 then return fail(status) end
  return true
end

-- ---- Objects ----

-- What an object has in [1]. The box owns what is behind it, and every raw call looks at `state`: a
-- copy of the object has the same box, and at the end of the program finalizers come in any order.
-- [2] is the pointer, typed; to read it from the box would allocate, and the finalizer that this
-- lets run could close the object. For the same reason nothing is allocated between a look at
-- `state` and the use of the pointer.
local Box = ffi.typeof [[struct {
  void *object;            /* where C puts it */
  uint8_t *data;           /* of a buffer, as the next four */
  const uint8_t *logged;   /* not 0: somebody follows the writes */
  const uint8_t *vanishes; /* not 0: the memory may go away; the core touches it */
  double size;
  uint32_t writable;
  uint32_t kind, state;
}]]
local NEW, OPEN, CLOSED = 0, 1, 2

local kinds = { vm = 1, buffer = 2, vcpu = 3, lines = 4 }
local release, pointers, places = {}, {}, {}
for kind, number in pairs(kinds) do
  release[number] = C["luna_" .. kind .. "_release"]
  pointers[kind], places[kind] = ffi.typeof("luna_" .. kind .. " *"),
    ffi.typeof("luna_" .. kind .. " **")
  pointers[number] = pointers[kind]
end

-- Releases what was never closed, even if an error came before anybody knew of it.
local function finalize(box)
  if box.state == CLOSED then return end
  box.state = CLOSED
  local object = box.object
  if object ~= nil then release[box.kind](ffi.cast(pointers[box.kind], object)) end
end

-- A box for a new object, and the place for C to put it.
local function new_box(kind)
  local box = Box()
  box.kind, box.state = kinds[kind], NEW
  return ffi.gc(box, finalize), ffi.cast(places[kind], box)
end

-- The same box with an object in it: [1] and [2].
local function filled(kind, box)
  local pointer = ffi.cast(pointers[kind], box.object)
  box.state = OPEN
  return box, pointer
end

-- ---- What is made with a number ----

local shared = {} -- what the further subjects get

--- What C has made since make_none, by number, even where its raw call did not come to its end.
function M.made()
  local number, event = made_out[0], shared.event
  if event and event[0].fd >= 0 then return event[0].fd end
  return number ~= 0 and number or nil
end

function M.make_none()
  made_out[0], shared.event = 0, nil
end

local complain

--- Says who raises for a closed object: a function that gets its kind.
function M.when_closed(fn)
  complain = fn
end

local function of(kind)
  return function(object)
    local box = object[1]
    if not box or box.state ~= OPEN then complain(kind) end
    return object[2]
  end
end

local vm_of, vcpu_of, buffer_of = of "vm", of "vcpu", of "buffer"

--- Whether an object is open, and not closed through a copy or a finalizer.
function M.is_open(object)
  local box = object[1]
  return box ~= false and box.state == OPEN
end

function M.close(object)
  local box = object[1]
  if not box then return end
  if box.state == OPEN then
    local hook, mask, count = debug.gethook()
    debug.sethook() -- an error between the two would lose the object
    if box.state == OPEN then -- gethook allocates: a finalizer may have closed it meanwhile
      box.state = CLOSED
      release[box.kind](object[2])
    end
    if hook then debug.sethook(hook, mask, count) end
    ffi.gc(box, nil)
  end
  object[1] = false
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

local reason = ffi.new("char[?]", 640)

-- luna_accelerator: which one a VM with it gets, and why
function M.choose(accel)
  local status = C.luna_accelerator_choose(accel, reason, ffi.sizeof(reason))
  if status < 0 then return fail(status) end
  return status, text(reason)
end

function M.accelerator_name(accel)
  return text(C.luna_accelerator_name(accel))
end

function M.probe(accel)
  return done(C.luna_accelerator_probe(accel))
end

function M.probe_name(index)
  return text(C.luna_probe_name(index))
end

function M.probe_value(accel, index)
  local status = C.luna_accelerator_value(accel, index, u64_out)
  if status < 0 then return fail(status) end
  return tonumber(u64_out[0])
end

function M.exit_name(kind)
  return text(C.luna_exit_name(kind))
end

function M.register_name(reg)
  return text(C.luna_register_name(reg))
end

function M.capability(accel, name)
  local status = C.luna_accelerator_capability(accel, name, u64_out)
  if status < 0 then return fail(status) end
  return tonumber(u64_out[0])
end

-- The further subjects, one file each: functions that add their raw calls to M.
for name, value in pairs {
  ffi = ffi, C = C, to_u64 = to_u64, text = text, fail = fail, done = done,
  new_box = new_box, filled = filled, OPEN = OPEN,
  vm_of = vm_of, vcpu_of = vcpu_of, buffer_of = buffer_of, lines_of = of "lines",
  made_out = made_out, u64_out = u64_out, u32_out = u32_out, room = room,
} do
  shared[name] = value
end
for _, part in ipairs {
  "buffer", "space", "vcpu", "state", "linear", "event", "exit", "debug", "interrupt", "thread",
  "stream", "lines",
} do
  require("lunavisor.binding.ffi_" .. part)(M, shared)
end

return M
