-- SPDX-License-Identifier: MIT
-- The author's side of registers: dev.REG, dev.REG.field and dev.REG[i] read and write what is
-- stored, without the effects that an access of the guest has; lines follow.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local compile = require "lunavisor.device.compile"
local u64 = require "lunavisor.text.u64"

local type, floor = type, math.floor

local M = {}

-- An unsigned value for so many bits; names of an enumeration will do, and true or false for a
-- bit.
local function check_value(what, value, count, enum, level)
  if count == 1 and type(value) == "boolean" then return value and 1 or 0 end
  if count <= 32 and type(value) == "number" and value >= 0 and value < 2 ^ count
    and value % 1 == 0 then
    return floor(value)
  end
  if enum and type(value) == "string" then
    local named = enum[value]
    if named == nil then
      error(("%s: there is no '%s'%s"):format(what, value, class.hint(value, enum)), level + 1)
    end
    value = named
  end
  local exact = bits.fits(value, count)
  if exact == nil then
    error(("%s: a value of %d bit%s expected, got %s"):format(what, count, count == 1 and "" or "s",
      check.shown(value)), level + 1)
  end
  return bits.plain(exact, count)
end

--- Stores a register's value; what looks at it follows. A device that is recorded has a function
--- `stored`, which is told of stores that it does not do itself, and of its timers.
local function store(d, register, slot, new)
  local old = d[slot]
  if d.stored then return d.stored(M.put, d, register, slot, new) end
  d[slot] = new
  if new ~= old then register.settle(d, new, old) end
end

--- The same, and nobody is told.
function M.put(d, register, slot, new)
  local old = d[slot]
  d[slot] = new
  if new ~= old then register.settle(d, new, old) end
end

M.store = store

-- What a register may not be set to.
local function check_bits(what, register, old, value, level)
  local exact = u64.exact(value)
  local const = u64.band(u64.bxor(exact, u64.exact(old)), register.const)
  if const ~= bits.zero then
    error(("%s: bits %s are constant"):format(what, u64.hex(const)), level + 1)
  end
  local reserved = u64.band(exact, register.reserved)
  if reserved ~= bits.zero then
    error(("%s: bits %s of %s are reserved"):format(what, u64.hex(reserved), u64.hex(exact)),
      level + 1)
  end
end

local function set_whole(what, d, register, slot, value, level)
  value = check_value(what, value, 8 * register.width, nil, level + 1)
  if register.const ~= bits.zero or register.reserved ~= bits.zero then
    check_bits(what, register, d[slot], value, level + 1)
  end
  store(d, register, slot, value)
end

-- ---- Fields ----

local function no_field(name, register, key, level)
  error(("register %s has no field %s%s"):format(name, tostring(key),
    class.hint(key, register.by)), level + 1)
end

-- The metatable of handles { device, slot } of a register with fields.
local function field_handles(layout, register)
  local name, by = layout.name .. "." .. register.name, register.by
  for _, field in ipairs(register.fields) do compile.field(layout, field) end
  local meta = { fields = by }
  function meta.__index(handle, key)
    local field = by[key]
    if field then return field.get(handle[1], handle[2]) end
    if key == "value" then return handle[1][handle[2]] end
    if class.is_probe(key) then return nil end
    no_field(name, register, key, 2)
  end
  function meta.__newindex(handle, key, value)
    local field = by[key]
    local d, slot = handle[1], handle[2]
    if field then
      local what = name .. "." .. key
      if field.access == "const" or field.access == "reserved" then
        error(("%s is %s: it cannot be set"):format(what, field.access), 2)
      end
      store(d, register, slot, field.put(d[slot], check_value(what, value, field.count, field.enum,
        2)))
    elseif key == "value" then
      set_whole(name, d, register, slot, value, 2)
    else
      no_field(name, register, key, 2)
    end
  end
  function meta.__tostring(handle)
    return ("%s %s"):format(name, M.text(register, handle[1][handle[2]]))
  end
  return meta
end

--- "0x81 (raise=1 mode=fast)": a value with its fields.
function M.text(register, value)
  local parts = {}
  for i = #register.fields, 1, -1 do
    local field = register.fields[i]
    local part = u64.rshift(u64.band(u64.exact(value), field.mask), field.low)
    local shown = u64.lt(part, 10) and ("%d"):format(u64.tonumber(part)) or u64.hex(part)
    parts[#parts + 1] = ("%s=%s%s"):format(field.name, field.names and
      field.names[bits.plain(part, field.count)] or shown, field.todo and " (todo)" or "")
  end
  return u64.hex(value) .. (#parts > 0 and " (" .. table.concat(parts, " ") .. ")" or "")
end

-- ---- Arrays ----

local function array_handles(layout, register, element)
  local name = layout.name .. "." .. register.name
  local count, slot = register.count, register.slot
  local function check_index(key, level)
    if type(key) ~= "number" or key < 0 or key >= count or key % 1 ~= 0 then
      error(("%s: an index from 0 to %d expected, got %s"):format(name, count - 1, tostring(key)),
        level + 1)
    end
  end
  local meta = {}
  function meta.__index(handle, key)
    if key == "count" then return count end
    if class.is_probe(key) and type(key) ~= "number" then return nil end
    check_index(key, 2)
    local d = handle[-1]
    if element then return setmetatable({ d, slot + key }, element) end
    return d[slot + key]
  end
  function meta.__newindex(handle, key, value)
    check_index(key, 2)
    set_whole(("%s[%d]"):format(name, key), handle[-1], register, slot + key, value, 2)
  end
  function meta.__tostring()
    return ("%s[0..%d]"):format(name, count - 1)
  end
  return meta
end

-- ---- What a device has under a register's name ----

--- Functions get(d) and set(d, value, level) of a register's name.
function M.accessors(layout, register)
  local slot, name = register.slot, layout.name .. "." .. register.name
  if register.fifo then
    return function(d) return d[slot] end, function(_, _, level)
      error(("%s is a FIFO: push, pop or clear it"):format(name), level + 1)
    end
  end
  local element = #register.fields > 0 and field_handles(layout, register) or nil
  local get, set
  if register.count then
    local meta = array_handles(layout, register, element)
    get = function(d) return setmetatable({ [-1] = d }, meta) end
    set = function(_, _, level)
      error(("%s is an array: set %s[i]"):format(name, register.name), level + 1)
    end
    return get, set
  end
  get = element and function(d)
    local handles = d.handles
    local handle = handles[slot]
    if not handle then
      handle = setmetatable({ d, slot }, element)
      handles[slot] = handle
    end
    return handle
  end or function(d) return d[slot] end
  set = function(d, value, level) set_whole(name, d, register, slot, value, level + 1) end
  return get, set
end

return M
