-- SPDX-License-Identifier: MIT
-- Host memory: page-aligned buffers with bounds-checked access, to be mapped into address spaces.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"

local Buffer = class.class "buffer"
local mine, open = class.checker(Buffer), class.opener(Buffer)
local methods = {}

-- The buffer objects that are alive, by number: a region knows only the number.
local by_id = setmetatable({}, { __mode = "v" })

local ANONYMOUS, MEMFD, FILE, POINTER = 0, 1, 2, 3                  -- luna_buffer_kind
local READ_ONLY, PRIVATE, HUGE_2M, HUGE_1G, SEALED = 1, 2, 4, 8, 16 -- luna_buffer_flag
local huge_flags = { ["2M"] = HUGE_2M, ["1G"] = HUGE_1G }

local known = {
  size = true, memfd = true, file = true, fd = true, pointer = true, offset = true,
  private = true, read_only = true, huge = true, sealed = true,
}

local function adopt(handle, pointer)
  local self = setmetatable({ handle, pointer, size = 0, id = 0 }, Buffer)
  self.size, self.id = raw.buffer_size(self), raw.buffer_id(self)
  return self
end

local function flag(what, options, name, bit)
  return check.flag(what .. ": " .. name, options[name], 3) and bit or 0
end

local function flags_of(options)
  local huge = 0
  if options.huge ~= nil then
    huge = huge_flags[options.huge]
    if not huge then
      error(("luna.buffer: huge: '2M' or '1G' expected, got %s"):format(tostring(options.huge)), 3)
    end
  end
  return flag("luna.buffer", options, "read_only", READ_ONLY)
    + flag("luna.buffer", options, "private", PRIVATE)
    + flag("luna.buffer", options, "sealed", SEALED) + huge
end

local function kind_of(options)
  if options.file ~= nil then check.name("luna.buffer: file", options.file, "a path", 2) end
  if options.fd ~= nil then check.whole("luna.buffer: fd", options.fd, 0, 2 ^ 31 - 1, 2) end
  if options.file or options.fd then return FILE end
  if options.pointer then return POINTER end
  return check.flag("luna.buffer: memfd", options.memfd, 2) and MEMFD or ANONYMOUS
end

--- luna.buffer(size) allocates zeroed memory. luna.buffer{...} says more:
---   size       bytes, a multiple of 4096, or "64K", "2M", "1G"; a file's own where nil
---   memfd      true: behind a descriptor (buffer:fd()) that other processes can map;
---              sealed: true lets nobody change its size
---   file, fd   the pages of a file, by path or open descriptor, from `offset`; writes go to the
---              file, or with private = true stay in this process; read_only = true for neither
---   pointer    page-aligned memory of the caller's own, who keeps it alive
---   huge       "2M" or "1G": from the pages the host has reserved (sysctl vm.nr_hugepages), or
---              else ordinary memory; buffer:page_size() tells which it is
--- nil, message, code where the host refuses. Memory that goes away later (a file that is cut
--- short) makes the methods below return nil, message, "system"; access to a file, to a pointer's
--- memory, and to an unsealed memfd whose descriptor was asked for is a system call for that.
local function new(options, ...)
  if select("#", ...) > 0 then
    error("luna.buffer: a size or one table expected: luna.buffer { size = '2M', memfd = true }", 2)
  end
  if type(options) ~= "table" then options = { size = options } end
  check.options("luna.buffer", options, known)
  local kind = kind_of(options)
  local size = options.size
  if size == nil and kind == FILE then size = 0 else size = check.size("luna.buffer", size) end
  local offset = check.size("luna.buffer: offset", options.offset or 0)
  local handle, message, code = check.again(raw.buffer_open, kind, flags_of(options), size,
    offset, options.file, options.fd, options.pointer)
  if not handle then return check.result(nil, message, code) end
  local self = adopt(handle, message)
  by_id[self.id] = self
  return self
end

local function check_writable(self)
  if not raw.buffer_writable(self) then error("the buffer is read-only", 3) end
end

-- Checks that [offset, offset + size) is in the buffer; size is the rest of it where nil.
local function inside(self, what, offset, size, depth)
  open(self, depth + 1)
  offset = check.whole(what .. ": offset", offset or 0, -2 ^ 53, nil, depth + 1)
  size = check.size(what .. ": size", size or math.max(0, self.size - offset), depth + 1)
  if offset < 0 or offset > self.size or size > self.size - offset then
    error(("%s: offset %s0x%x and size %d are outside the buffer, which has 0x%x bytes")
      :format(what, offset < 0 and "-" or "", math.abs(offset), size, self.size), depth + 2)
  end
  return offset, size
end

--- A buffer that is `size` bytes of this one from `offset` (the rest where size is nil), and keeps
--- it alive. Mapped, it counts as this one.
function methods.view(self, offset, size)
  offset, size = inside(self, "buffer:view", offset, size, 1)
  local handle, message, code = check.again(raw.buffer_view, self, offset, size)
  if not handle then return check.result(nil, message, code) end
  return adopt(handle, message)
end

--- The descriptor behind a memfd or file buffer, which stays the buffer's own; nil for others. Who
--- has that of an unsealed memfd can cut it short: from now on access is as slow as to a file.
function methods.fd(self)
  open(self)
  local fd = raw.buffer_fd(self)
  return fd >= 0 and fd or nil
end

--- The size of the pages that it is made of: 4096, or more where huge pages were reserved.
function methods.page_size(self)
  open(self)
  return raw.buffer_page_size(self)
end

--- The address of the memory: on LuaJIT a uint8_t pointer that keeps the buffer alive, on 5.4 a
--- light userdata, good while the buffer is open. Writes through it are not noticed by space:dirty;
--- say buffer:mark(offset, size).
function methods.pointer(self)
  open(self)
  return raw.buffer_pointer(self)
end

--- Says that `size` bytes at `offset` were written behind the library's back, for space:dirty.
function methods.mark(self, offset, size)
  offset, size = inside(self, "buffer:mark", offset, size, 1)
  return raw.buffer_mark(self, offset, size)
end

--- Copies `size` bytes of `source` from `from` to `offset` of this buffer; the ranges may overlap.
function methods.copy(self, offset, source, from, size)
  open(self)
  check.object("buffer:copy: source", source, Buffer)
  from, size = inside(source, "buffer:copy: source", from, size, 1)
  offset = inside(self, "buffer:copy", offset, size, 1)
  check_writable(self)
  return raw.buffer_copy(self, offset, source, from, size)
end

--- Compares `size` bytes at `offset` with those of `other` from `from`: nil where they are equal,
--- else the distance of the first difference.
function methods.compare(self, offset, other, from, size)
  open(self)
  check.object("buffer:compare: other", other, Buffer)
  from, size = inside(other, "buffer:compare: other", from, size, 1)
  offset = inside(self, "buffer:compare", offset, size, 1)
  return raw.buffer_compare(self, offset, other, from, size)
end

--- Gives the buffer up. Memory that is mapped stays until it is unmapped. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if by_id[self.id] == self then by_id[self.id] = nil end
  raw.close(self)
end

--- buffer:u8(offset) reads an unsigned little-endian integer, buffer:u8(offset, value) writes one.
--- u8, u16 and u32 are numbers, u64 is a u64. An offset outside the buffer raises.
--- On Lua 5.4, where a function around it would take longer than copying some kilobytes,
--- buffer:write is one of the raw calls too.
local plain_methods = raw.buffer_methods(Buffer, function(object)
  open(object, 2)
  error("attempt to use a closed buffer", 3)
end)
for _, name in ipairs { "u8", "u16", "u32", "u64" } do methods[name] = plain_methods[name] end

-- LuaJIT's string.buffer, where there is one.
local function is_string_buffer(value)
  return rawget(_G, "jit") ~= nil and type(value) == "userdata"
    and getmetatable(value) == "buffer"
end

-- Whether a value needs no further look.
local function plain(value)
  return type(value) == "number" and value >= 0 and value % 1 == 0
end

--- `size` bytes from `offset` as a string; the rest of the buffer where size is nil. On LuaJIT,
--- `into` may be a string.buffer: the bytes are appended to it, and it is returned.
function methods.read(self, offset, size, into)
  if not (into == nil and plain(offset) and plain(size) and getmetatable(self) == Buffer
    and self[1] and size <= self.size - offset) then
    offset, size = inside(self, "buffer:read", offset, size, 1)
  end
  if into ~= nil and not is_string_buffer(into) then
    error(("buffer:read: into: a string.buffer of LuaJIT expected, got %s"):format(type(into)), 2)
  end
  return raw.buffer_read(self, offset, size, into)
end

local function check_string(what, value)
  if type(value) ~= "string" then
    error(("%s: a string expected, got %s"):format(what, type(value)), 3)
  end
end

--- Writes the bytes of a string, or on LuaJIT of a string.buffer, at `offset`.
function methods.write(self, offset, data)
  open(self)
  if not is_string_buffer(data) then check_string("buffer:write", data) end
  offset = inside(self, "buffer:write", offset, #data, 1)
  check_writable(self)
  return raw.buffer_write(self, offset, data)
end

methods.write = plain_methods.write or methods.write

local PIECE = 64 -- bytes; most strings are shorter

--- The string from `offset` up to a zero byte, or of `limit` bytes at most.
function methods.string(self, offset, limit)
  open(self)
  offset = inside(self, "buffer:string", offset, 0, 1)
  limit = check.whole("buffer:string: limit", limit or self.size, 0)
  local left = math.min(limit, self.size - offset)
  local pieces, size = {}, PIECE
  while left > 0 do -- what is looked at is what was read: a guest may write there meanwhile
    local piece, message, code = raw.buffer_read(self, offset, math.min(size, left))
    if not piece then return nil, message, code end
    local zero = piece:find("\0", 1, true)
    pieces[#pieces + 1] = zero and piece:sub(1, zero - 1) or piece
    if zero then break end
    offset, left, size = offset + #piece, left - #piece, size * 2
  end
  return table.concat(pieces)
end

--- Sets `size` bytes from `offset` to `byte`; buffer:fill(byte) sets all.
function methods.fill(self, byte, offset, size)
  open(self)
  byte = check.whole("buffer:fill: byte", byte, 0, 255)
  offset, size = inside(self, "buffer:fill", offset, size, 1)
  check_writable(self)
  return raw.buffer_fill(self, offset, size, byte)
end

--- The offset of the first occurrence of a byte string in [from, to), or nil. The whole buffer by
--- default.
function methods.find(self, bytes, from, to)
  open(self)
  check_string("buffer:find", bytes)
  from = check.whole("buffer:find: from", from or 0, 0, self.size)
  to = check.whole("buffer:find: to", to or self.size, from, self.size)
  inside(self, "buffer:find", from, to - from, 1)
  return raw.buffer_find(self, from, to - from, bytes)
end

local function dump_line(address, bytes)
  local hex = {}
  for i = 1, 16 do
    local byte = bytes:byte(i)
    hex[i] = (byte and ("%02x"):format(byte) or "  ") .. (i == 8 and " " or "")
  end
  return ("%08x  %s  |%s|"):format(address, table.concat(hex, " "),
    (bytes:gsub("[^\32-\126]", ".")))
end

--- Text of `size` bytes (256 where nil) from `offset`, 16 a line: address, hex, characters.
function methods.hexdump(self, offset, size)
  offset = inside(self, "buffer:hexdump", offset, 0, 1)
  offset, size = inside(self, "buffer:hexdump", offset,
    size or math.min(256, self.size - offset), 1)
  local data, message, code = raw.buffer_read(self, offset, size)
  if not data then return nil, message, code end
  local lines = {}
  for at = 0, size - 1, 16 do
    lines[#lines + 1] = dump_line(offset + at, data:sub(at + 1, at + 16))
  end
  return table.concat(lines, "\n")
end

class.define(Buffer, methods, "id size")
Buffer.__close = methods.close

function Buffer.__tostring(self)
  if not raw.is_open(self) then return "buffer (closed)" end
  return ("buffer %d (0x%x bytes)"):format(self.id, self.size)
end

return { new = new, class = Buffer, by_id = by_id }
