-- SPDX-License-Identifier: MIT
-- One entry of a device's table, checked and worked out: a register with its masks and fields.
-- Mistakes go to `blame(path, message, other path)`, which raises at the author's line.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local matches = require "lunavisor.device.match"
local u64 = require "lunavisor.text.u64"

local M = {}

--- What the guest can do with the bits, by access word; the mask that they belong to.
M.ACCESS = {
  ro = "ro", rw = "rw", wo = "rw", w1c = "w1c", w1s = "w1s", w0c = "w0c", rc = "rc", rs = "rs",
  wc = "wc", toggle = "toggle", reserved = "ro", const = "ro",
}
M.MASKS = { "rw", "w1c", "w1s", "w0c", "wc", "toggle", "rc", "rs" }

local REGISTER = {
  at = true, width = true, access = true, reset = true, fields = true, count = true, stride = true,
  fifo = true, trigger = true, when = true, todo = true, precious = true, read = true, write = true,
  narrow = true, rest = true, doc = true, follows = true, after = true, match = true,
  sequence = true, pair = true, first = true, shared = true, bank = true, index = true, step = true,
  block = true,
}
local FIELD = {
  [1] = true, [2] = true, bits = true, access = true, reset = true, enum = true, todo = true,
  follows = true, after = true, read = true, write = true, doc = true,
}

-- ---- Checks ----

local function check_keys(blame, path, spec, known, what)
  for key in pairs(spec) do
    if not known[key] then
      blame(path, ("%s has no '%s'%s"):format(what, tostring(key), class.hint(key, known)), nil,
        key)
    end
  end
end

M.check_keys = check_keys

local function is_whole(value, low, high)
  return type(value) == "number" and value % 1 == 0 and value >= low and value <= high
end

M.is_whole = is_whole

local function check_access(blame, path, access)
  if access ~= nil and not M.ACCESS[access] then
    blame(path, ("access: one of const, rc, reserved, ro, rs, rw, toggle, w0c, w1c, w1s, wc, wo "
      .. "expected, got %s%s"):format(tostring(access), class.hint(access, M.ACCESS)))
  end
  return access
end

local function check_function(blame, path, spec, key)
  local value = spec[key]
  if value ~= nil and type(value) ~= "function" then
    blame(path, ("%s: a function expected, got %s"):format(key, class.describe(value)))
  end
  return value
end

M.check_function = check_function

local function check_todo(blame, path, value)
  if value ~= nil and type(value) ~= "string" then
    blame(path, ("todo: where it is described (a section of the datasheet) expected, got %s")
      :format(class.describe(value)))
  end
  return value
end

local function check_value(blame, path, what, value, count)
  local exact = bits.fits(value, count)
  if exact == nil then
    local shown = u64.exact(value) ~= nil and u64.hex(value) or tostring(value)
    blame(path, ("%s %s does not fit in %d bit%s"):format(what, shown, count,
      count == 1 and "" or "s"))
  end
  return exact
end

-- ---- Fields ----

-- The lowest and highest bit of 7 or "11:8".
local function span(blame, path, value, width)
  local high, low
  if type(value) == "string" then
    high, low = value:match "^(%d+):(%d+)$"
    high, low = tonumber(high), tonumber(low)
  elseif is_whole(value, 0, 63) then
    high, low = value, value
  end
  if not high or low > high then
    blame(path, ("bits: a number such as 7 or a range such as \"11:8\" expected, got %s")
      :format(type(value) == "string" and ("%q"):format(value) or tostring(value)))
  elseif high >= 8 * width then
    blame(path, ("bit %d is beyond the %d bits of the register"):format(high, 8 * width))
  end
  return math.floor(low), math.floor(high)
end

local function enum_of(blame, path, enum, count)
  if enum == nil then return nil end
  if type(enum) ~= "table" then blame(path, "enum: a table of values by name expected") end
  local names = {}
  for name, value in pairs(enum) do
    check_value(blame, path, ("enum: %s ="):format(tostring(name)), value, count)
    if names[value] then
      blame(path, ("enum: %s and %s are both %d"):format(names[value], tostring(name), value))
    end
    names[value] = name
  end
  return names
end

local function field_of(blame, path, name, spec, register)
  if type(name) ~= "string" or name == "value" then
    blame(path, ("a field cannot be called %s"):format(tostring(name)))
  end
  if type(spec) ~= "table" then spec = { spec } end
  check_keys(blame, path, spec, FIELD, "a field")
  local low, high = span(blame, path, spec.bits or spec[1], register.width)
  local count = high - low + 1
  local access = check_access(blame, path, spec.access or spec[2])
  local field = {
    name = name, low = low, high = high, count = count, mask = bits.mask(low, count), path = path,
    access = access or (spec.follows and "ro") or register.access or "rw",
    enum = spec.enum, names = enum_of(blame, path, spec.enum, count), doc = spec.doc,
    todo = check_todo(blame, path, spec.todo), follows = spec.follows, after = spec.after,
    read = check_function(blame, path, spec, "read"),
    write = check_function(blame, path, spec, "write"),
    register = register,
  }
  if spec.reset ~= nil then
    local value = type(spec.enum) == "table" and spec.enum[spec.reset] or spec.reset
    field.reset = check_value(blame, path, "reset", value, count)
    if field.access == "reserved" and field.reset ~= bits.zero then
      blame(path, "a reserved field has a reset value; make it 'const' if it reads as that")
    end
  end
  return field
end

local function check_overlaps(blame, fields)
  for i, field in ipairs(fields) do
    local before = fields[i - 1]
    if before and field.low <= before.high then
      blame(field.path, ("field %s (bits %d to %d) overlaps %s (bits %d to %d)"):format(field.name,
        field.low, field.high, before.name, before.low, before.high), before.path)
    end
  end
end

local function fields_of(blame, path, specs, register)
  local list, by = {}, {}
  if type(specs) ~= "table" then blame(path, "fields: a table of fields by name expected") end
  for name, spec in pairs(specs) do
    local field = field_of(blame, path .. ".fields." .. tostring(name), name, spec, register)
    list[#list + 1], by[name] = field, field
  end
  table.sort(list, function(a, b)
    if a.low ~= b.low then return a.low < b.low end
    return a.name < b.name
  end)
  check_overlaps(blame, list)
  return list, by
end

-- ---- Masks ----

local function add(register, access, mask)
  local name = M.ACCESS[access]
  register.masks[name] = u64.bor(register.masks[name] or bits.zero, mask)
  if access == "wo" or access == "reserved" then
    register.hidden = u64.bor(register.hidden, mask)
  end
  if access == "reserved" then register.reserved = u64.bor(register.reserved, mask) end
  if access == "const" then register.const = u64.bor(register.const, mask) end
end

local function add_masks(register, spec)
  local rest = register.all
  for _, field in ipairs(register.fields) do
    add(register, field.access, field.mask)
    rest = bits.without(rest, field.mask)
  end
  if #register.fields == 0 then
    add(register, register.access, rest)
  elseif rest ~= bits.zero then
    add(register, spec.rest or "reserved", rest)
  end
end

-- The reset values of the elements of an array, of a list of them or a string of bytes.
local function resets_of(blame, path, spec, register)
  local given, list = spec.reset, {}
  if type(given) == "string" then given = { given:byte(1, -1) } end
  if not register.count or #given > register.count then
    blame(path, ("reset: %d values, and the register has %d element%s"):format(#given,
      register.count or 1, (register.count or 1) == 1 and "" or "s"))
  end
  for i = 1, register.count do
    local exact = check_value(blame, path, "reset", given[i] or 0, 8 * register.width)
    list[i - 1] = bits.plain(exact, 8 * register.width)
  end
  return list
end

local function reset_of(blame, path, spec, register)
  local value = spec.reset or 0
  if value == 0 and #register.fields == 0 then return bits.zero end
  if type(value) == "string" or type(value) == "table" then
    register.resets = resets_of(blame, path, spec, register)
    return bits.zero
  end
  local reset = check_value(blame, path, "reset", value, 8 * register.width)
  local beyond = u64.band(reset, register.reserved)
  if beyond ~= bits.zero then
    blame(path, ("the reset value %s has %s in reserved bits"):format(u64.hex(reset),
      u64.hex(beyond)))
  end
  for _, field in ipairs(register.fields) do
    if field.reset then
      local own = u64.lshift(field.reset, field.low)
      local other = u64.band(reset, field.mask)
      if spec.reset ~= nil and other ~= own then
        blame(field.path, ("the reset value of %s is %s here and %s in the register's"):format(
          field.name, u64.hex(field.reset), u64.hex(u64.rshift(other, field.low))), path)
      end
      reset = u64.bor(bits.without(reset, field.mask), own)
    end
  end
  return reset
end

local BLOCK = { read = true, write = true }

local function check_block(blame, path, spec)
  local block = spec.block
  if block == nil then return end
  if type(block) ~= "table" or spec.fifo or spec.count then
    blame(path, "block: a table with read, write or both, of a register without FIFO and count, "
      .. "expected")
  end
  check_keys(blame, path, block, BLOCK, "block")
  for key in pairs(BLOCK) do check_function(blame, path, block, key) end
end

local NUMBERS = { "count", "stride", "fifo", "trigger" }
local widths = { [1] = true, [2] = true, [4] = true, [8] = true }

local function check_numbers(blame, path, spec)
  for _, key in ipairs(NUMBERS) do
    if spec[key] ~= nil and not is_whole(spec[key], 1, 65536) then
      blame(path, ("%s: a whole number from 1 to 65536 expected, got %s"):format(key,
        tostring(spec[key])))
    end
  end
  if spec.at ~= false and not is_whole(spec.at, 0, 2 ^ 52) then
    blame(path, ("at: the offset of the register, or false, expected, got %s"):format(
      tostring(spec.at)))
  end
  if spec.narrow ~= nil and spec.narrow ~= "merge" and spec.narrow ~= "refuse" then
    blame(path, ("narrow: 'merge' or 'refuse' expected, got %s"):format(tostring(spec.narrow)))
  end
end

--- A register of `spec`; `region` has the defaults: width, narrow.
function M.new(blame, path, name, spec, region)
  if type(spec) ~= "table" then
    blame(path, ("register %s: a table expected, got %s"):format(tostring(name),
      class.describe(spec)))
  end
  check_keys(blame, path, spec, REGISTER, "a register")
  check_numbers(blame, path, spec)
  local width = spec.width or region.width
  if not widths[width] then
    blame(path, ("width: 1, 2, 4 or 8 bytes expected, got %s"):format(tostring(width)))
  end
  local register = {
    name = name, at = spec.at and math.floor(spec.at), width = width, path = path,
    region = region, spec = spec,
    all = bits.all(width), access = check_access(blame, path, spec.access),
    count = spec.count, stride = spec.stride or width, fifo = spec.fifo, trigger = spec.trigger,
    when = check_function(blame, path, spec, "when"), todo = check_todo(blame, path, spec.todo),
    precious = spec.precious or false, narrow = spec.narrow or region.narrow, doc = spec.doc,
    read = check_function(blame, path, spec, "read"),
    write = check_function(blame, path, spec, "write"),
    follows = spec.follows, after = spec.after, block = spec.block or false,
    masks = {}, hidden = bits.zero, reserved = bits.zero, const = bits.zero, leads = {},
  }
  if register.count and register.stride < width then
    blame(path, ("stride %d is less than the width %d"):format(register.stride, width))
  end
  check_block(blame, path, spec)
  if register.fifo and (spec.fields or register.count) then
    blame(path, "a FIFO has neither fields nor a count")
  end
  register.fields, register.by = {}, {}
  if spec.fields ~= nil then
    register.fields, register.by = fields_of(blame, path, spec.fields, register)
  end
  check_access(blame, path, spec.rest)
  register.access = register.access or spec.follows and "ro" or "rw"
  add_masks(register, spec)
  register.reset = reset_of(blame, path, spec, register)
  register.initial = bits.plain(register.reset, 8 * width)
  if spec.match ~= nil then
    if spec.write ~= nil then blame(path, "match and write: one or the other expected") end
    register.write = matches.new(blame, path, spec.match, register)
  end
  return register
end

--- The last offset of a register, with all elements.
function M.last(register)
  if not register.at then return -1 end
  return register.at + ((register.count or 1) - 1) * register.stride + register.width - 1
end

return M
