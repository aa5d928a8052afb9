-- SPDX-License-Identifier: MIT
-- DMA of a device: guest memory by address, all of an access or nothing. What the guest chose is
-- never an error of Lua: where it cannot be, the answer is nil and a message.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local u64 = require "lunavisor.text.u64"

local unpack = rawget(table, "unpack") or unpack

local M = {}

local Dma = class.class "dma"
local mine = class.checker(Dma)
local methods = {}

--- DMA over `memory`, an object with read(memory, gpa, size) -> bytes or nil, message and
--- write(memory, gpa, bytes) -> true or nil, message; nil: there is none. `name`: whose it is.
function M.new(name, memory)
  return setmetatable({ name = name, memory = memory or false, translate = false }, Dma)
end

local MOST = 2 ^ 30 -- bytes at once

local function refused(self, verb, gpa, size, why)
  local count = u64.lt(MOST, size) and u64.hex(size) or ("%d"):format(size)
  return nil, ("%s: DMA cannot %s %s byte%s at gpa %s: %s"):format(self.name, verb, count,
    size == 1 and "" or "s", u64.hex(gpa), why), "fault"
end

-- A gpa that a guest may have made up, as a number that memory takes; nil beyond 2^52.
local function address(gpa)
  local exact = u64.exact(gpa)
  if exact == nil or not u64.lt(exact, 2 ^ 52) then return nil end
  return u64.tonumber(exact)
end

-- The pieces { gpa, size } that a translation makes of a range.
local function pieces(self, gpa, size, access)
  if not self.translate then return { { gpa, size } } end
  local list, done = {}, 0
  while done < size do
    local to, count = self.translate(gpa + done, size - done, access)
    if to == nil then return nil, count or "the translation refuses it" end
    count = math.min(count or size - done, size - done)
    if count < 1 then return nil, "the translation gives no bytes" end
    list[#list + 1] = { address(to), count }
    if not list[#list][1] then return nil, "it is translated to no guest-physical address" end
    done = done + count
  end
  return list
end

local function located(self, gpa, size, access)
  if not self.memory then return nil, "the device is attached to no memory" end
  local at = address(gpa)
  if not at then return nil, "it is beyond the guest-physical addresses" end
  return pieces(self, at, size, access)
end

local function exact_gpa(what, gpa)
  local exact = u64.exact(gpa)
  if exact == nil then
    error(("%s: gpa: an integer expected, got %s"):format(what, tostring(gpa)), 3)
  end
  return exact
end

-- The bytes, or nil and why.
local function read(self, gpa, size)
  local list, why = located(self, gpa, size, "r")
  if not list then return nil, why end
  for i, at in ipairs(list) do
    local data, message = self.memory:read(at[1], at[2])
    if not data then return nil, message end
    list[i] = data
  end
  return table.concat(list)
end

-- All pieces can be read before one is written: nothing is half done.
local function write(self, gpa, data)
  local list, why = located(self, gpa, #data, "w")
  if not list then return nil, why end
  if #list > 1 then
    for _, at in ipairs(list) do
      local ok, message = self.memory:read(at[1], at[2])
      if not ok then return nil, message end
    end
  end
  local from = 1
  for _, at in ipairs(list) do
    local ok, message = self.memory:write(at[1], data:sub(from, from + at[2] - 1))
    if not ok then return nil, message end
    from = from + at[2]
  end
  return true
end

--- Bytes of guest memory as a string. `size` may be a u64, as a register of 8 bytes has it; nil,
--- message where they are not all there, or more than 1 GiB.
function methods.read(self, gpa, size)
  mine(self)
  gpa = exact_gpa("dma:read", gpa)
  local count = u64.exact(size)
  if count == nil then
    error(("dma:read: size: a number of bytes expected, got %s"):format(tostring(size)), 2)
  end
  if u64.lt(MOST, count) then
    return refused(self, "read", gpa, count, "1 GiB is the most at once")
  end
  size = u64.tonumber(count)
  if size == 0 then return "" end
  local data, why = read(self, gpa, size)
  if not data then return refused(self, "read", gpa, size, why) end
  return data
end

--- Writes a string to guest memory; true, or nil, message and nothing is written.
function methods.write(self, gpa, data)
  mine(self)
  gpa = exact_gpa("dma:write", gpa)
  if type(data) ~= "string" then
    error(("dma:write: a string expected, got %s"):format(class.describe(data)), 2)
  end
  if data == "" then return true end
  local ok, why = write(self, gpa, data)
  if not ok then return refused(self, "write", gpa, #data, why) end
  return true
end

local function number_of(size, big)
  local name = "dma:u" .. 8 * size
  return function(self, gpa, value)
    mine(self)
    gpa = exact_gpa(name, gpa)
    if value == nil then
      local data, why = read(self, gpa, size)
      if not data then return refused(self, "read", gpa, size, why) end
      local list = { data:byte(1, size) }
      if big then bits.swap(list, 1, size) end
      return bits.value(list, size)
    end
    local exact = bits.fits(value, 8 * size)
    if exact == nil then
      error(("%s: a value of %d byte%s expected, got %s"):format(name, size, size == 1 and ""
        or "s", check.shown(value)), 2)
    end
    local list = bits.bytes(bits.plain(exact, 8 * size), size)
    if big then bits.swap(list, 1, size) end
    local ok, why = write(self, gpa, string.char(unpack(list)))
    if not ok then return refused(self, "write", gpa, size, why) end
    return true
  end
end

--- dma:u8(gpa) to dma:u64(gpa) read a little-endian number, with a value they write it; the same
--- with _be is big-endian.
for _, size in ipairs { 1, 2, 4, 8 } do
  methods["u" .. 8 * size] = number_of(size)
  if size > 1 then methods["u" .. 8 * size .. "_be"] = number_of(size, true) end
end

class.define(Dma, methods, "memory translate name")

-- ---- Memory ----

local Bytes = {}
Bytes.__index = Bytes

function Bytes.read(self, gpa, size)
  local parts = {}
  for at = gpa, gpa + size - 1 do
    local byte = self[at]
    if not byte then return nil, ("nothing is mapped at gpa 0x%x"):format(at) end
    parts[#parts + 1] = string.char(byte)
  end
  return table.concat(parts)
end

function Bytes.write(self, gpa, data)
  for at = gpa, gpa + #data - 1 do
    if not self[at] then return nil, ("nothing is mapped at gpa 0x%x"):format(at) end
  end
  for i = 1, #data do self[gpa + i - 1] = data:byte(i) end
  return true
end

--- Memory without a VM: `size` zero bytes at `gpa`, 0 where nil.
function M.bytes(size, gpa)
  local made = setmetatable({}, Bytes)
  for at = gpa or 0, (gpa or 0) + size - 1 do made[at] = 0 end
  return made
end

M.class = Dma

return M
