-- SPDX-License-Identifier: MIT
-- Host memory: page-aligned buffers with bounds-checked access, to be mapped into address spaces.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"

local Buffer = { __name = "buffer" }
local methods = {}

-- The buffer objects that are alive, by number: a region knows only the number.
local by_id = setmetatable({}, { __mode = "v" })

--- Allocates zeroed memory. `size` in bytes, a multiple of 4096, or "64K", "2M", "1G".
--- nil, message, code where the host has no memory for it.
local function new(size)
  local bytes = check.size("luna.buffer", size)
  local handle, message, code = raw.buffer_create(bytes)
  if not handle then return check.result(nil, message, code) end
  local self = setmetatable({ handle, size = bytes }, Buffer)
  self.id = raw.buffer_id(self)
  by_id[self.id] = self
  return self
end

--- Gives the buffer up. Memory that is mapped stays until it is unmapped. Doing it twice is fine.
function methods.close(self)
  raw.close(self)
end

--- buffer:u8(offset) reads an unsigned little-endian integer, buffer:u8(offset, value) writes one.
--- u8, u16 and u32 are numbers, u64 is a u64. An offset outside the buffer raises.
methods.u8, methods.u16, methods.u32, methods.u64 = raw.u8, raw.u16, raw.u32, raw.u64

--- `size` bytes from `offset` as a string; the rest of the buffer where size is nil.
function methods.read(self, offset, size)
  check.whole("buffer:read: offset", offset, 0)
  size = size or self.size - offset
  check.whole("buffer:read: size", size, 0)
  return raw.buffer_read(self, offset, size)
end

--- Writes the bytes of a string at `offset`.
function methods.write(self, offset, data)
  check.whole("buffer:write: offset", offset, 0)
  if type(data) ~= "string" then
    error(("buffer:write: a string expected, got %s"):format(type(data)), 2)
  end
  return raw.buffer_write(self, offset, data)
end

--- The string from `offset` up to a zero byte, or of `limit` bytes at most.
function methods.string(self, offset, limit)
  check.whole("buffer:string: offset", offset, 0)
  local size = math.min(limit or self.size, self.size - offset)
  local zero = raw.buffer_find(self, offset, size, "\0")
  return raw.buffer_read(self, offset, zero and zero - offset or size)
end

--- Sets `size` bytes from `offset` to `byte`; buffer:fill(byte) sets all.
function methods.fill(self, byte, offset, size)
  offset = check.whole("buffer:fill: offset", offset or 0, 0)
  size = check.whole("buffer:fill: size", size or self.size - offset, 0)
  return raw.buffer_fill(self, offset, size, byte)
end

--- The offset of the first occurrence of a byte string in [from, to), or nil. The whole buffer by
--- default.
function methods.find(self, bytes, from, to)
  if type(bytes) ~= "string" then
    error(("buffer:find: a string expected, got %s"):format(type(bytes)), 2)
  end
  from = check.whole("buffer:find: from", from or 0, 0)
  to = check.whole("buffer:find: to", to or self.size, from, self.size)
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
  offset = check.whole("buffer:hexdump: offset", offset or 0, 0, self.size)
  size = check.whole("buffer:hexdump: size", size or math.min(256, self.size - offset), 0)
  local data, lines = raw.buffer_read(self, offset, size), {}
  for at = 0, size - 1, 16 do
    lines[#lines + 1] = dump_line(offset + at, data:sub(at + 1, at + 16))
  end
  return table.concat(lines, "\n")
end

Buffer.__index = methods
Buffer.__close = methods.close

function Buffer.__tostring(self)
  if not raw.is_open(self) then return "buffer (closed)" end
  return ("buffer %d (0x%x bytes)"):format(self.id, self.size)
end

return { new = new, class = Buffer, by_id = by_id }
