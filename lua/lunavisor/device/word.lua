-- SPDX-License-Identifier: MIT
-- Bit operations on unsigned numbers of up to 32 bits, the same on both engines, for devices whose
-- commands are no fields of a register.

local jit = rawget(_G, "jit") ~= nil

local word

if jit then
  local bit = require "bit"
  local band, bor, bxor = bit.band, bit.bor, bit.bxor
  word = {
    band = function(a, b) return band(a, b) % 2 ^ 32 end,
    bor = function(a, b) return bor(a, b) % 2 ^ 32 end,
    bxor = function(a, b) return bxor(a, b) % 2 ^ 32 end,
  }
else
  word = load [[
    return {
      band = function(a, b) return a & b end,
      bor = function(a, b) return a | b end,
      bxor = function(a, b) return a ~ b end,
    }]]()
end

local floor = math.floor

--- `count` bits of a value from bit `low`, as a whole number; 1 bit where count is nil.
function word.bits(value, low, count)
  return floor(value / 2 ^ low) % floor(2 ^ (count or 1))
end

--- The value with `part` as `count` bits from bit `low`.
function word.insert(value, low, count, part)
  return floor(value + (part % 2 ^ count - word.bits(value, low, count)) * 2 ^ low)
end

--- The number of the only bit of a number; nil where it has not exactly one.
function word.only(value)
  if type(value) ~= "number" or value < 1 or value == math.huge then return nil end
  local low = floor(math.log(value) / math.log(2) + 0.5)
  return 2 ^ low == value and low or nil
end

--- Two decimal digits, one in each half of a byte, of a number from 0 to 99.
function word.bcd(number)
  return floor(number / 10) * 16 + number % 10
end

--- The number that such a byte stands for.
function word.from_bcd(byte)
  return floor(byte / 16) * 10 + byte % 16
end

return word
