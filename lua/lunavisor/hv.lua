-- SPDX-License-Identifier: MIT
-- The calls of Apple's Hypervisor framework for x86, by the same names without the prefix hv_, for
-- those who know it: hv.vm_map_space(asid, buffer, gpa, size, hv.MEMORY_READ + hv.MEMORY_WRITE).
-- They are the C library's, whose headers (Hypervisor/hv.h and the others) say what each does.
--
-- A call that succeeds returns what C puts behind its pointers, or true. One that fails changes
-- nothing and returns nil, message, code; code is Apple's name in lower case ("bad_argument"), and
-- hv.errors[code] its number. Arguments of a wrong type raise at the caller's line. Registers, MSRs
-- and fields of the VMCS are u64; addresses in guest-physical space, sizes, flags and numbers of
-- spaces and vCPUs are plain numbers, for which a u64 will do as well.
--
-- A buffer of luna.buffer stands for an address of the process; a view of it for one inside. A
-- thread is one of Lua's: a vCPU belongs to the coroutine that made it, and goes with it.

local luna = require "lunavisor"
local u64 = require "lunavisor.text.u64"
local raw = require "lunavisor.binding.backend"
local call = require "lunavisor.hv.call"
local parse = require "lunavisor.hv.parse"
local state = require "lunavisor.hv.state"

local fail, bind = call.fail, call.bind

local hv = { errors = call.errors }

for name, value in pairs(parse.constants) do hv[name] = value end

local function define(...) call.define(hv, ...) end

-- ---- Calls that are as in C ----

local results = { uint64_t = "u64", bool = "boolean" } -- by the type behind a pointer; or "number"

-- Those that are not are defined anew below, or not at all. A list of pages of the program is
-- always empty.
parse.calls.ext_vm_map_buffer, parse.calls.ext_thread_adopt = nil, nil
for name, parameters in pairs(parse.calls) do
  local names, letters, outs = {}, "", {}
  for _, parameter in ipairs(parameters) do
    if parameter.name == "uva" then
      letters = letters .. "z0"
      break
    end
    local list = parameter.pointer and outs or names
    list[#list + 1] = parameter.pointer and (results[parameter.type] or "number") or parameter.name
    letters = letters .. (parameter.pointer and "o" or "i")
  end
  define(name, table.concat(names, " "), bind(name, letters, (table.unpack or unpack)(outs)))
end
define("capability", "capability", bind("capability", "io", "number"))

-- ---- The VM and its memory ----

local vm_create = bind("vm_create", "i")
define("vm_create", "flags?", function(flags) return vm_create(flags or 0) end)

local map = bind("ext_vm_map_buffer", "ibiiii")
local function map_space(asid, buffer, gpa, size, flags)
  return map(asid, raw.buffer_object(buffer), 0, gpa, size, flags)
end

--- The first `size` bytes of a buffer, which live until they are unmapped.
define("vm_map_space", "asid buffer gpa size flags", map_space)
define("vm_map", "buffer gpa size flags", function(...) return map_space(0, ...) end)

local allocated = setmetatable({}, { __mode = "k" }) -- a set of buffers

--- A buffer of `size` zeroed bytes, a multiple of 4096.
define("vm_allocate", "size flags?", function(size, flags)
  if (flags or 0) ~= hv.ALLOCATE_DEFAULT then
    return fail("bad_argument", "there are no flags 0x%x of memory", flags)
  end
  local right, made, message = pcall(luna.buffer, size)
  if not right then return fail("bad_argument", "%s", made) end
  if not made then return fail("no_resources", "%s", message) end
  allocated[made] = true
  return made
end)

--- Closes a buffer of vm_allocate, whose size may be said again.
define("vm_deallocate", "buffer size?", function(buffer, size)
  if not allocated[buffer] or size and size ~= buffer.size then
    return fail("bad_argument", "hv.vm_allocate did not give that buffer with that size")
  end
  allocated[buffer] = nil
  buffer:close()
  return true
end)

-- ---- Writes to ports that signal ----

local Event = {}
Event.__index = Event
local events = {} -- by what was asked for: key_of

--- How many of the writes the guest has made since the last call.
function Event.read(self) return raw.eventfd_read(self.fd) end

local function key_of(...)
  return table.concat({ ... }, " ")
end

-- Forgets the event, and closes what was made here.
local function drop(key)
  if events[key].made then call.library.close(events[key].fd) end
  events[key] = nil
end

local vm_destroy = hv.vm_destroy
function hv.vm_destroy()
  local done, message, code = vm_destroy()
  for key in pairs(done and events or {}) do drop(key) end
  return done, message, code
end

-- The descriptor of a number or of an object with one; -1 where there is none.
local function descriptor(port)
  local fd = type(port) == "table" and port.fd or port
  if type(fd) == "function" then fd = fd(port) end
  return type(fd) == "number" and fd >= 0 and fd < 2 ^ 31 and math.floor(fd) or -1
end

local add, remove = bind("vm_add_pio_notifier", "iiiii"), bind("vm_remove_pio_notifier", "iiiii")
local notifier = "addr size value port! flags"

--- `port` is an eventfd: a descriptor, an object with one (fd), or nil: one is made. Returns an
--- object with fd and read(), which counts the writes.
define("vm_add_pio_notifier", notifier, function(addr, size, value, port, flags)
  local fd = port == nil and call.library.eventfd() or descriptor(port)
  local done, message, code = add(addr, size, value, fd, flags)
  if done then
    local event = setmetatable({ fd = fd, made = port == nil }, Event)
    events[key_of(addr, size, value, fd, flags)] = event
    return event
  end
  if port == nil and fd >= 0 then call.library.close(fd) end
  return nil, message, code
end)

define("vm_remove_pio_notifier", notifier, function(addr, size, value, port, flags)
  local fd = descriptor(port)
  local done, message, code = remove(addr, size, value, fd, flags)
  if done then drop(key_of(addr, size, value, fd, flags)) end
  return done, message, code
end)

-- ---- vCPUs ----

local vcpu_create = bind("vcpu_create", "oi", "number")
define("vcpu_create", "flags?", function(flags)
  local most = luna.capability "vcpus_max" - 1
  local before = call.own(0, most) -- an error may come before the number is known
  local id, message, code = vcpu_create(flags or 0)
  if id then call.own(id, id) elseif before then call.own(before.first, before.last)
  else call.own(nil) end
  return id, message, code
end)

local vcpu_destroy = hv.vcpu_destroy
function hv.vcpu_destroy(id)
  local done, message, code = vcpu_destroy(id)
  if done then call.own(nil) end
  return done, message, code
end

local vcpu_interrupt = bind("vcpu_interrupt", "mi")
define("vcpu_interrupt", "vcpus", function(ids)
  local list = {}
  for i, id in ipairs(ids) do list[i] = state.write(32, id) end
  return vcpu_interrupt(table.concat(list), #ids)
end)

local function same(bytes) return bytes end
local function zeroes(size) return ("\0"):rep(size) end

local read_fpstate = bind("vcpu_read_fpstate", "imi", same)
local write_fpstate = bind("vcpu_write_fpstate", "imi")
--- A string of `size` bytes, of all where nil; and such a string.
define("vcpu_read_fpstate", "vcpu size?", function(id, size)
  size = size or luna.capability "xsave_size"
  return read_fpstate(id, zeroes(size), size)
end)
define("vcpu_write_fpstate", "vcpu bytes", function(id, bytes)
  return write_fpstate(id, bytes, #bytes)
end)

define("tsc_clock", "", call.library.tsc_clock)

local decode_access, _, no_access = state.structure(parse.structures.hv_ext_access)
local access = bind("ext_vcpu_access", "im", function(bytes)
  local found = decode_access(bytes)
  found.port = found.port ~= 0
  if found.size < 8 then found.value = u64.tonumber(found.value) end
  return found
end)
--- A table: address, value, size, access, port (true of I/O ports), left.
define("ext_vcpu_access", "vcpu", function(id) return access(id, no_access) end)

-- ---- Interrupt controllers ----

-- A state is given as a table and taken as one: C's argument `at`, beside another or none.
local function define_state(name, what, version, arguments, at)
  local kind = "hv_" .. name:match "_(%l+)$" .. "_state"
  local decode, encode, empty = state.structure(parse.structures[kind], what, version)
  local letters = at == 2 and "im" or arguments:find " " and "mi" or "m"
  local get, put = bind(name .. "_get_state", letters, decode), bind(name .. "_put_state", letters)
  define(name .. "_get_state", (arguments:gsub(" ?state ?", "")), function(other)
    if at == 2 then return get(other, empty) end
    return get(empty, other)
  end)
  define(name .. "_put_state", arguments, function(...)
    local given = { ... }
    local bytes, problem = encode(given[at])
    given[at] = bytes
    local done, message, code = put(given[1], given[2]) -- without one, too: there may be no VM
    return done, problem and code == "bad_argument" and problem or message, code
  end)
end

define_state("vcpu_apic", "local APIC", hv.APIC_STATE_EXT_VER, "vcpu state", 2)
define_state("vm_ioapic", "I/O APIC", hv.IOAPIC_STATE_EXT_VER, "state", 1)
define_state("vm_atpic", "PIC", hv.ATPIC_STATE_EXT_VER, "state is_primary", 1)

--- true, and whether nothing is left for the program.
local apic_write = bind("vcpu_apic_write", "iiio", "boolean")
define("vcpu_apic_write", "vcpu offset data", function(...)
  local quiet, message, code = apic_write(...)
  if quiet == nil then return nil, message, code end
  return true, quiet
end)

local function flags_in(bytes)
  local list = {}
  for i = 1, #bytes do list[i] = bytes:byte(i) ~= 0 end
  return list
end

local init_ap = bind("vcpu_exit_init_ap", "imi", flags_in)
local startup_ap = bind("vcpu_exit_startup_ap", "imio", flags_in, "number")
--- A list of `count` vCPUs, true where INIT or SIPI was sent to the one of that number (from 0 at
--- index 1); for SIPI, the address where they start.
define("vcpu_exit_init_ap", "vcpu count", function(id, count)
  return init_ap(id, zeroes(count), count)
end)
define("vcpu_exit_startup_ap", "vcpu count", function(id, count)
  return startup_ap(id, zeroes(count), count)
end)

--- Vector, error code (nil for none), and whether it is a fault.
local inject_excp = bind("vcpu_exit_inject_excp", "ioooo", "number", "boolean", "number", "boolean")
define("vcpu_exit_inject_excp", "vcpu", function(id)
  local vector, valid, number, fault = inject_excp(id)
  if not vector then return vector, valid, number end
  return vector, valid and number or nil, fault
end)

return hv
