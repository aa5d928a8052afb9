-- SPDX-License-Identifier: MIT
-- C's structures as tables and back, with the framework's names.

local u64 = require "lunavisor.text.u64"
local pack = require "lunavisor.text.pack"

local M = {}

-- Fields of 64 bits that are ordinary numbers, not u64.
local plain = { apic_gpa = true, apic_controls = true, address = true }

local function read(bits, bytes, at)
  local a, b, c, d = bytes:byte(at + 1, at + 4)
  if bits == 1 then return a ~= 0 end
  if bits == 8 then return a end
  local low = math.floor(a + b * 2 ^ 8 + c * 2 ^ 16 + d * 2 ^ 24)
  return bits == 32 and low or u64(read(32, bytes, at + 4), low)
end

--- The bytes of a value; nil for one that has more bits, or is none.
function M.write(bits, value)
  if bits == 1 then return type(value) == "boolean" and (value and "\1" or "\0") or nil end
  local exact = u64.exact(value)
  if exact == nil or u64.lt(1, u64.rshift(exact, bits - 1)) then return nil end
  return pack.encode("u64", { exact }):sub(1, bits / 8)
end

--- A function that makes a table of a structure's bytes; one that makes bytes of a table, or nil
--- and a message; and the bytes to ask C for one. With a version, it comes first.
function M.structure(fields, what, version)
  local head = version and M.write(32, version) .. ("\0"):rep(fields.align - 4) or ""
  local empty = head .. ("\0"):rep(fields.size)

  local function decode(bytes)
    local state = {}
    for _, field in ipairs(fields) do
      local list = {}
      for i = 1, field.count or 1 do
        list[i] = read(field.bits, bytes, #head + field.at + (i - 1) * field.size)
        if plain[field.name] then list[i] = u64.tonumber(list[i]) end
      end
      state[field.name] = field.count and list or list[1]
    end
    return state
  end

  local function encode(state)
    local bytes = head
    for _, field in ipairs(fields) do
      local value = state[field.name]
      local values = field.count and (type(value) == "table" and value or {}) or { value }
      bytes = bytes .. ("\0"):rep(#head + field.at - #bytes)
      for i = 1, field.count or 1 do
        local part = M.write(field.bits, values[i])
        if not part then
          return nil, ("the %s's %s %s"):format(what, field.name, field.count
            and ("has %d entries that fit"):format(field.count) or "cannot be " .. tostring(value))
        end
        bytes = bytes .. part
      end
    end
    return bytes .. ("\0"):rep(#empty - #bytes)
  end

  return decode, encode, empty
end

return M
