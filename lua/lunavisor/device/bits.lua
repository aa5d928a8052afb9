-- SPDX-License-Identifier: MIT
-- Bits of registers: masks at definition time (u64 throughout), the operators of the engine as text
-- for generated functions, and values as bytes.

local u64 = require "lunavisor.text.u64"

local floor = math.floor

local M = {}

M.zero = u64(0)
local zero = M.zero

local masks = {} -- that were asked for

--- The mask of `count` bits from bit `low`.
function M.mask(low, count)
  local key = 65 * low + count
  local mask = masks[key]
  if not mask then
    local ones = count == 64 and u64.bnot(0) or u64.lshift(1, count) - u64(1)
    mask = u64.lshift(ones, low)
    masks[key] = mask
  end
  return mask
end

--- All bits of a register of so many bytes.
function M.all(width)
  return M.mask(0, 8 * width)
end

function M.without(mask, other)
  return u64.band(mask, u64.bnot(other))
end

--- A value of a register or field of `bits` bits as scripts see it: a number up to 32 bits, a u64
--- beyond.
function M.plain(value, bits)
  if bits > 32 then return u64.exact(value) end
  return u64.tonumber(value)
end

--- The exact u64 of an unsigned value that fits in so many bits, else nil.
function M.fits(value, bits)
  if type(value) == "number" and value < 0 and bits < 64 then return nil end
  local exact = u64.exact(value)
  if exact == nil or bits < 64 and u64.rshift(exact, bits) ~= zero then return nil end
  return exact
end

-- ---- Text ----

local jit = rawget(_G, "jit") ~= nil

--- A constant of a register of so many bytes.
function M.constant(value, width)
  local text = u64.hex(value)
  if not jit then return text end
  return width == 8 and text .. "ULL" or ("%.0f"):format(u64.tonumber(value))
end

--- What generated text begins with.
M.PREAMBLE = jit and "local bit = require 'bit'\nlocal band, bor, bxor, bnot = bit.band, bit.bor, "
  .. "bit.bxor, bit.bnot\nlocal lshift, rshift = bit.lshift, bit.rshift\n" or ""

local function operator(name, sign)
  if jit then return function(a, b) return ("%s(%s, %s)"):format(name, a, b) end end
  return function(a, b) return ("(%s %s %s)"):format(a, sign, b) end
end

M.band, M.bor, M.bxor = operator("band", "&"), operator("bor", "|"), operator("bxor", "~")
M.lshift, M.rshift = operator("lshift", "<<"), operator("rshift", ">>")
function M.bnot(a) return (jit and "bnot(%s)" or "(~%s)"):format(a) end

--- LuaJIT's operators give signed numbers: the unsigned one of a register of so many bytes.
function M.unsigned(text, width)
  return jit and width == 4 and ("%s %% 4294967296"):format(text) or text
end

--- Makes a function of generated text, whose frames have `name` in tracebacks; `given` is what the
--- text gets as `...`.
function M.compile(name, text, given)
  local chunk, problem = (loadstring or load)(M.PREAMBLE .. text, "=" .. name)
  if not chunk then error(problem .. "\n" .. text, 0) end
  return chunk(given)
end

-- ---- Bytes ----

--- The bytes of a value of so many bytes, the lowest first.
function M.bytes(value, count)
  local list = {}
  if count <= 4 then
    for i = 1, count do list[i] = floor(value / 256 ^ (i - 1)) % 256 end
    return list
  end
  local rest = u64.exact(value)
  for i = 1, count do
    list[i] = u64.tonumber(u64.band(rest, 0xff))
    rest = u64.rshift(rest, 8)
  end
  return list
end

local function half(list, first, last)
  local sum = 0
  for i = last, first, -1 do sum = sum * 256 + (list[i] or 0) end
  return sum
end

--- The value of the first `count` of such bytes.
function M.value(list, count)
  if count <= 4 then return half(list, 1, count) end
  return u64(half(list, 5, count), half(list, 1, 4))
end

--- The bytes from `first` to `last` in the other order, in place.
function M.swap(list, first, last)
  while first < last do
    list[first], list[last] = list[last], list[first]
    first, last = first + 1, last - 1
  end
end

return M
