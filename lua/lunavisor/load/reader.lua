-- SPDX-License-Identifier: MIT
-- The bytes of an image, which nobody vouches for: every read is checked against their end, and
-- what is wrong becomes a refusal that says the field, its offset, its value and what was expected.

local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local floor = math.floor

local M = {}

local Refusal = class.class "refusal"

--- Ends the load: luna.load returns nil, the message and the code ("format" where nil).
function M.refuse(code, form, ...)
  error(setmetatable({ message = form:format(...), code = code }, Refusal), 0)
end

--- The message and code of an error that is a refusal; nothing for any other.
function M.refusal(value)
  if getmetatable(value) == Refusal then return value.message, value.code end
end

--- What a function gives for its arguments; nil where it refuses them. Any other error goes on.
function M.attempt(f, ...)
  local ok, value = pcall(f, ...)
  if ok then return value end
  if not M.refusal(value) then error(value, 0) end
  return nil
end

local MOST = 2 ^ 28 -- of a stream whose size nobody says
local PIECE = 2 ^ 20

-- All of a file; nil, why not.
local function contents(file)
  local size = file:seek "end"
  if size then file:seek "set" end
  if size and size > 0 then return file:read "*a" end
  local pieces = {}
  for i = 1, MOST / PIECE do
    local piece, why = file:read(PIECE)
    if not piece then return not why and table.concat(pieces) or nil, why end
    pieces[i] = piece
  end
  return nil, "it has no end in the first 256 MiB"
end

local function read_file(name)
  local file, message = io.open(name, "rb")
  if not file then
    M.refuse("not_found", "%s: it cannot be opened: %s", name, (message:gsub("^.-: ", "")))
  end
  local bytes, why = contents(file)
  file:close()
  if not bytes then M.refuse("system", "%s: it cannot be read: %s", name, why) end
  return bytes
end

local methods = {}
local Image = class.define(class.class "image bytes", methods, "bytes name size kind path")

--- The image of that name for messages; `path`: of the file whose bytes they all are.
function M.new(bytes, name, path)
  return setmetatable({ bytes = bytes, name = name, size = #bytes, kind = "image",
    path = path or false }, Image)
end

--- The image of a source, { bytes =, name = }, whose name is that of a file where it has no bytes.
function M.open(source)
  if source.bytes then return M.new(source.bytes, source.name) end
  return M.new(read_file(source.name), source.name, source.name)
end

--- Refuses the image for all of it, or for something that has no single field.
function methods.refuse(self, code, form, ...)
  M.refuse(code, "%s: %s: " .. form, self.name, self.kind, ...)
end

--- Refuses the value of a field: the image is damaged, or made for something else (`code`
--- "unsupported"). `expected` says what belongs there.
function methods.wrong(self, field, offset, value, expected, code)
  self:refuse(code or "format", "%s at offset 0x%x is %s: %s expected", field, offset,
    type(value) == "string" and value or u64.hex(value), expected)
end

--- Checks that [offset, offset + size) is in the image; `field` says what lies there.
function methods.need(self, offset, size, field)
  if offset + size > self.size then
    self:refuse("format", "%s at offset 0x%x takes %.0f bytes, which end at 0x%x: "
      .. "an image of that length expected, this one has 0x%x bytes", field, offset, size,
      offset + size, self.size)
  end
end

--- The bytes [offset, offset + size).
function methods.part(self, offset, size, field)
  self:need(offset, size, field)
  return self.bytes:sub(offset + 1, offset + size)
end

function methods.u8(self, offset, field)
  self:need(offset, 1, field)
  return self.bytes:byte(offset + 1)
end

function methods.u16(self, offset, field)
  self:need(offset, 2, field)
  local low, high = self.bytes:byte(offset + 1, offset + 2)
  return low + high * 0x100
end

function methods.u32(self, offset, field)
  self:need(offset, 4, field)
  local a, b, c, d = self.bytes:byte(offset + 1, offset + 4)
  return a + b * 0x100 + c * 0x10000 + d * 0x1000000
end

--- An 8-byte field as a u64.
function methods.wide(self, offset, field)
  self:need(offset, 8, field)
  return u64(self:u32(offset + 4, field), self:u32(offset, field))
end

local LIMIT = 2 ^ 20 -- of the upper half: sums of two such numbers are exact

--- An 8-byte field that is a length, an offset or a guest-physical address: a number below 2^52.
function methods.u64(self, offset, field)
  self:need(offset, 8, field)
  local high, low = self:u32(offset + 4, field), self:u32(offset, field)
  if high >= LIMIT then
    self:wrong(field, offset, u64(high, low), "a value below 0x10000000000000")
  end
  return floor(high * 2 ^ 32) + low
end

local TEXT_MOST = 4096

--- The offset of a header that may lie anywhere in the first `searched` bytes: at a multiple of
--- `alignment`, it begins with `magic`, and its first `count` 32-bit fields add up to 0. Or nil.
function methods.find_header(self, magic, searched, alignment, count)
  local first = self.bytes:sub(1, searched)
  local at = first:find(magic, 1, true)
  while at do
    local offset = at - 1
    if offset % alignment == 0 and offset + 4 * count <= #first then
      local sum = 0
      for i = 0, count - 1 do sum = sum + self:u32(offset + 4 * i, "the header") end
      if sum % 2 ^ 32 == 0 then return offset end
    end
    at = first:find(magic, at + 1, true)
  end
end

--- The text from `offset` on, up to a zero byte, which must come before `last`.
function methods.text(self, offset, last, field)
  last = math.min(last, offset + TEXT_MOST)
  local text = self.bytes:sub(offset + 1, last)
  local finish = text:find("\0", 1, true)
  if not finish then
    self:refuse("format", "%s at offset 0x%x has no zero byte up to 0x%x: a text that ends "
      .. "expected", field, offset, last)
  end
  return text:sub(1, finish - 1)
end

--- The bytes of a short string as hexadecimal digits.
function M.hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x "):format(byte:byte()) end):sub(1, -2))
end

-- ---- The other way ----

--- `data` with `bytes` in the place of those from `offset` on.
function M.patch(data, offset, bytes)
  return data:sub(1, offset) .. bytes .. data:sub(offset + #bytes + 1)
end

--- The next multiple of `alignment`.
function M.align(value, alignment)
  return floor(math.ceil(value / alignment) * alignment)
end

-- ---- Bytes that hold addresses of themselves ----

local parts = {}
local Blob = class.define(class.class "blob", parts, "gpa size list")

--- Bytes for guest memory that are put together piece by piece, to lie at `gpa`.
function M.blob(gpa)
  return setmetatable({ gpa = gpa, size = 0, list = {} }, Blob)
end

--- Appends bytes at the next multiple of `alignment` (1 where nil) and gives their address.
function parts.add(self, bytes, alignment)
  local at = M.align(self.size, alignment or 1)
  self.list[#self.list + 1] = ("\0"):rep(at - self.size) .. bytes
  self.size = at + #bytes
  return self.gpa + at
end

function parts.bytes(self)
  return table.concat(self.list)
end

return M
