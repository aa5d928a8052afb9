-- SPDX-License-Identifier: MIT
-- The C library for LuaJIT, over ffi.load: the same functions as native.c has for Lua 5.4.

local ffi = require "ffi"

require "lunavisor.binding.backend" -- brings liblunavisor, which the library needs

if not pcall(ffi.typeof, "hv_return_t") then
  local header = require "lunavisor.hv.header"
  ffi.cdef((header:gsub("enum {[^}]*ull[^}]*};", ""))) -- LuaJIT's enumerators have 32 bits
  ffi.cdef "int eventfd(unsigned int, int); int close(int);"
end

local function library_path()
  local path = os.getenv "LUNAVISOR_HYPERVISOR_LIBRARY"
  if path and path ~= "" then return path end
  local stamped, found = pcall(require, "lunavisor.hv.library")
  local file = stamped and io.open(found, "rb")
  if not file then return "libHypervisor.so.0" end
  file:close()
  return found
end

local C = ffi.load(library_path())
local M = {}

local tools = {
  place = ffi.typeof "uint64_t[1]", string = ffi.string,
  void = function(memory) return ffi.cast("void *", memory) end,
  memory = function(text)
    if not text then return nil end
    local made = ffi.new("uint8_t[?]", #text)
    ffi.copy(made, text, #text)
    return made
  end,
}

-- What each letter is in the source of a call, as its n-th argument: made once; made at each call;
-- given by the caller; passed to C; and returned.
local sources = {
  i = { given = "a#", passed = "a#" },
  b = { given = "a#", passed = "a#" },
  o = { once = "local o# = place() local p# = void(o#)", before = "o#[0] = 0", passed = "p#",
    returned = "o#[0]" },
  m = { given = "a#", before = "local m# = memory(a#)", passed = "void(m#)",
    returned = "m# and string(m#, #a#)" },
  z = { passed = "nil" },
  ["0"] = { passed = "0" },
}

--- The call of that name. A letter is an argument of C's: i an integer or boolean, b a luna_buffer
--- (buffer_object), m memory that has a string's bytes before, o a place for an integer, z a null
--- pointer, 0 the number. Returned are the status, the integer of each o and the bytes of each m.
function M.call(name, letters)
  local parts = { once = {}, before = {}, given = {}, passed = {}, returned = { "status" } }
  for n = 1, #letters do
    for part, source in pairs(sources[letters:sub(n, n)]) do
      table.insert(parts[part], (source:gsub("(%l)#", "%1" .. n)))
    end
  end
  local function list(part) return table.concat(parts[part], ", ") end
  local text = ("%s return function(%s) %s local status = fn(%s) return %s end"):format(
    table.concat(parts.once, " "), list "given", table.concat(parts.before, " "), list "passed",
    list "returned")
  return setfenv(loadstring(text), setmetatable({ fn = C[name] }, { __index = tools }))()
end

--- The sentence of the last failure.
function M.message() return ffi.string(C.hv_ext_error_message()) end

--- The processor's time-stamp counter.
function M.tsc_clock() return C.hv_tsc_clock() end

--- A descriptor that does not block, or -1; and closes one.
function M.eventfd() return ffi.C.eventfd(0, 0x80800) end -- EFD_CLOEXEC, EFD_NONBLOCK
function M.close(fd) ffi.C.close(fd) end

return M
