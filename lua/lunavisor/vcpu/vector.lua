-- SPDX-License-Identifier: MIT
-- The registers that are wider than 64 bits, and the mask registers: cpu.xmm[0], cpu.ymm[3].u64[1],
-- cpu.zmm, cpu.st, cpu.k.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local pack = require "lunavisor.text.pack"

local M = {}

-- By name: the number (luna_vector), how many there can be, bytes.
M.kinds = {
  st = { name = "st", number = 0, count = 8, size = 10 },
  xmm = { name = "xmm", number = 1, count = 32, size = 16 },
  ymm = { name = "ymm", number = 2, count = 32, size = 32 },
  zmm = { name = "zmm", number = 3, count = 32, size = 64 },
  k = { name = "k", number = 4, count = 8, size = 8 },
}

-- ---- A value ----

-- What a register held when it was read: `data` are its bytes.
local Vector = class.class "vector"
local mine = class.checker(Vector)
local methods = {}

--- The bytes as a string, the lowest first.
function methods.bytes(self)
  mine(self)
  return rawget(self, "data")
end

--- An x87 register as a number, as near as one comes.
function methods.number(self)
  mine(self)
  local parts = pack.decode("u16", rawget(self, "data"))
  local mantissa = 0
  for i = 1, 4 do mantissa = mantissa + parts[i] * 2 ^ (16 * i - 79) end
  local exponent, sign = parts[5] % 0x8000, parts[5] >= 0x8000 and -1 or 1
  if exponent == 0x7fff then return mantissa == 1 and sign * math.huge or 0 / 0 end
  return sign * mantissa * 2 ^ (math.max(exponent, 1) - 16383)
end

function Vector.__index(self, key)
  if pack.sizes[key] then return pack.decode(key, rawget(self, "data")) end
  if key == "number" and #rawget(self, "data") ~= 10 then return nil end
  if methods[key] then return methods[key] end
  if not class.is_probe(key) then class.missing(Vector, key, nil, 2) end
end

class.announce(Vector, methods, "u8 u16 u32 u64 f32 f64")

function Vector.__newindex(self)
  error(("%s is what the register held when it was read; assign to the register itself")
    :format(tostring(self)), 2)
end

function Vector.__eq(a, b)
  return rawget(a, "data") == rawget(b, "data")
end

function Vector.__tostring(self)
  return "0x" .. rawget(self, "data"):reverse():gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)
end

M.Vector = Vector

-- ---- The registers of a kind ----

local Bank = class.class("bank of registers", "registers")

local function need(self, index, level)
  local cpu, kind = rawget(self, "cpu"), rawget(self, "kind")
  if not cpu[1] then error("attempt to use a closed vcpu", level + 1) end
  if type(index) ~= "number" or index % 1 ~= 0 or index < 0 or index >= kind.count then
    error(("there is no register %s[%s]: the index is 0 to %d")
      :format(kind.name, tostring(index), kind.count - 1), level + 1)
  end
  return cpu, kind
end

function Bank.__index(self, index)
  local cpu, kind = need(self, index, 2)
  local data, message = raw.get_vector(cpu, kind.number, index, kind.size)
  if not data then error(message, 2) end
  if kind.size == 8 then return pack.decode("u64", data)[1] end
  return setmetatable({ data = data }, Vector)
end

-- The view and the list of { 1, 2 } (u64) or { f64 = { 1.5 } }.
local function view_of(value)
  local name, list = next(value)
  if type(name) == "string" and type(list) == "table" then return name, list end
  return "u64", value
end

local function bytes_of(kind, value, level)
  if getmetatable(value) == Vector then value = rawget(value, "data") end
  if type(value) ~= "table" then
    if kind.size == 8 and type(value) ~= "string" then value = { value } end
    if type(value) == "string" then
      if #value == kind.size then return value end
      error(("a register %s has %d bytes, the string has %d"):format(kind.name, kind.size, #value),
        level + 1)
    end
  end
  if type(value) ~= "table" then
    error(("register %s: a string of %d bytes, a list of u64 or a table like { f64 = { 1.5 } } "
      .. "expected, got %s"):format(kind.name, kind.size, type(value)), level + 1)
  end
  local view, list = view_of(value)
  if not pack.sizes[view] then
    error(("register %s: the views are f32, f64, u8, u16, u32 and u64, not '%s'")
      :format(kind.name, tostring(view)), level + 1)
  end
  local data, bad = pack.encode(view, list)
  if not data then
    error(("register %s: %s is no %s"):format(kind.name, tostring(bad), view), level + 1)
  end
  if #data > kind.size then
    error(("register %s: it has %d bytes, these are %d"):format(kind.name, kind.size, #data),
      level + 1)
  end
  return data .. ("\0"):rep(kind.size - #data)
end

function Bank.__newindex(self, index, value)
  local cpu, kind = need(self, index, 2)
  local ok, message = raw.set_vector(cpu, kind.number, index, bytes_of(kind, value, 2))
  if not ok then error(message, 2) end
end

function Bank.__tostring(self)
  local kind, lines = rawget(self, "kind"), {}
  for index = 0, kind.count - 1 do
    local ok, value = pcall(Bank.__index, self, index)
    if not ok then break end -- this host has no more
    lines[#lines + 1] = ("%-6s %s"):format(kind.name .. index,
      kind.size == 8 and "0x" .. require("lunavisor.text.u64").key(value) or tostring(value))
  end
  return table.concat(lines, "\n")
end

--- The registers of a kind; assigning to one of them writes it.
function M.bank(cpu, kind)
  return setmetatable({ cpu = cpu, kind = kind }, Bank)
end

--- cpu.xsave: the whole area as a string.
function M.xsave(cpu)
  local data, message = raw.get_xsave(cpu)
  if not data then error(message, 2) end
  return data
end

function M.set_xsave(cpu, data)
  if type(data) ~= "string" then
    error(("cpu.xsave: a string expected, got %s"):format(type(data)), 2)
  end
  return check.result(raw.set_xsave(cpu, data))
end

return M
