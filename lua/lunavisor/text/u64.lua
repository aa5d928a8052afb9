-- SPDX-License-Identifier: MIT
-- Unsigned 64-bit integers, the same on both engines: registers, MSRs, linear addresses and 8-byte
-- values. On Lua 5.4 one is an integer (two's complement), on LuaJIT a uint64_t. + - * and == work
-- on both.

local class = require "lunavisor.class"

local type, floor, error, tostring = type, math.floor, error, tostring

local u64 = {}

local EXACT = 2 ^ 53 -- every whole number up to here is exact in a double

-- What differs: `exact` (an exact u64 from a number or a u64, else nil), `parts` (high and low 32
-- bits as numbers), `join`, and the operators that only one of the two parsers knows.
local engine

if rawget(_G, "jit") then
  local ffi, bit = require "ffi", require "bit"
  local uint64, int64 = ffi.typeof "uint64_t", ffi.typeof "int64_t"
  local istype, cast = ffi.istype, ffi.cast
  -- LuaJIT 2.1.0-beta3 compiles (x & k) >> n with constants k and n to (x >> n) & k. It does not
  -- where it has to load the distance.
  local zero = ffi.new "int32_t[1]"
  local function rshift(value, n) return bit.rshift(value, n + zero[0]) end
  engine = {
    exact = function(value)
      if type(value) == "number" then
        if floor(value) ~= value or value > EXACT or value < -EXACT then return nil end
        return cast(uint64, cast(int64, value))
      end
      if istype(uint64, value) then return value end
      if istype(int64, value) then return cast(uint64, value) end
      return nil
    end,
    parts = function(value)
      return tonumber(rshift(value, 32)), tonumber(value % 2 ^ 32)
    end,
    join = function(high, low) return cast(uint64, high) * 2 ^ 32 + cast(uint64, low) end,
    lt = function(a, b) return a < b end,
    div = function(a, b) return a / b end,
    mod = function(a, b) return a % b end,
    band = bit.band, bor = bit.bor, bxor = bit.bxor, bnot = bit.bnot,
    lshift = function(value, n) return bit.lshift(value, n + zero[0]) end,
    rshift = rshift,
  }
else
  engine = assert(load [[
    local math = math
    local function div(a, b)
      if b < 0 then return math.ult(a, b) and 0 or 1 end
      if a >= 0 then return a // b end
      local q = ((a >> 1) // b) << 1
      return math.ult(a - q * b, b) and q or q + 1
    end
    return {
      exact = math.tointeger,
      parts = function(value) return value >> 32, value & 0xffffffff end,
      join = function(high, low) return high << 32 | low end,
      lt = math.ult,
      div = div,
      mod = function(a, b) return a - div(a, b) * b end,
      band = function(a, b) return a & b end,
      bor = function(a, b) return a | b end,
      bxor = function(a, b) return a ~ b end,
      bnot = function(a) return ~a end,
      lshift = function(a, n) return a << n end,
      rshift = function(a, n) return a >> n end,
    }]])()
  local tointeger, kind = engine.exact, math.type
  engine.exact = function(value) -- a string is no number here, and beyond 2^53 a float is not exact
    local is = kind(value)
    if is == "integer" then return value end
    if is == "float" and value <= EXACT and value >= -EXACT then return tointeger(value) end
    return nil
  end
end

--- An exact u64 from a whole number or a u64, else nil. Negative numbers wrap.
u64.exact = engine.exact

-- The exact value, or an error `level` calls above.
local function need(value, level)
  local exact = engine.exact(value)
  if exact == nil then
    error(("%s is not an exact 64-bit integer (write large ones as u64 \"0x...\")")
      :format(tostring(value)), (level or 2) + 1)
  end
  return exact
end

local function parse(digits)
  local hex = digits:match "^0[xX](%x+)$"
  if not hex or #hex > 16 then
    error(("%q is not a hexadecimal number of up to 16 digits, like \"0x1f\""):format(digits), 3)
  end
  hex = ("0"):rep(16 - #hex) .. hex
  return engine.join(need(tonumber(hex:sub(1, 8), 16)), need(tonumber(hex:sub(9), 16)))
end

local function half(value)
  if type(value) ~= "number" or value < 0 or value >= 2 ^ 32 or floor(value) ~= value then
    error(("u64(high, low): two halves of 32 bits expected, got %s"):format(tostring(value)), 3)
  end
  return need(value)
end

--- u64(5), u64 "0xdeadbeefcafebabe" or u64(high, low) with two 32-bit halves.
local function make(_, value, low)
  local made
  if low ~= nil then
    made = engine.join(half(value), half(low))
  elseif type(value) == "string" then
    made = parse(value)
  else
    made = need(value, 2)
  end
  return made -- not a tail call: the checks count on this frame
end

--- "0x" and the digits, without leading zeros.
function u64.hex(value)
  local high, low = engine.parts(need(value))
  if high == 0 then return ("0x%x"):format(low) end
  return ("0x%x%08x"):format(high, low)
end

--- All sixteen digits: a table key and an order that are the same on both engines.
function u64.key(value)
  local high, low = engine.parts(need(value))
  return ("%08x%08x"):format(high, low)
end

--- An ordinary number; an error if it would not be exact.
function u64.tonumber(value)
  local high, low = engine.parts(need(value))
  if high > 2 ^ 21 or (high == 2 ^ 21 and low > 0) then
    error(("0x%x%08x does not fit in an ordinary number exactly"):format(high, low), 2)
  end
  return floor(high * 2 ^ 32 + low)
end

function u64.lt(a, b) return engine.lt(need(a), need(b)) end
function u64.le(a, b) return not engine.lt(need(b), need(a)) end

local function need_divisor(value)
  local exact = need(value, 3)
  if exact == need(0) then error("division by zero", 3) end
  return exact
end

function u64.div(a, b) return engine.div(need(a), need_divisor(b)) end
function u64.mod(a, b) return engine.mod(need(a), need_divisor(b)) end
function u64.band(a, b) return engine.band(need(a), need(b)) end
function u64.bor(a, b) return engine.bor(need(a), need(b)) end
function u64.bxor(a, b) return engine.bxor(need(a), need(b)) end
function u64.bnot(a) return engine.bnot(need(a)) end

local function check_shift(n)
  if type(n) ~= "number" or n < 0 or n > 63 or floor(n) ~= n then
    error(("a shift by %s: 0 to 63 expected"):format(tostring(n)), 3)
  end
  return n
end

function u64.lshift(a, n) return engine.lshift(need(a), check_shift(n)) end
function u64.rshift(a, n) return engine.rshift(need(a), check_shift(n)) end

return class.strict("luna.u64", setmetatable(u64, { __call = make }))
