-- SPDX-License-Identifier: MIT
-- What a device's table says of accesses, worked out a second time and without the kit's generated
-- functions: which register answers a byte, what a read gives, and what a write leaves.

local bits = require "lunavisor.device.bits"
local device = require "lunavisor.device"
local u64 = require "lunavisor.text.u64"

local band, bor, bxor, bnot = u64.band, u64.bor, u64.bxor, u64.bnot
local zero = bits.zero

local M = {}

-- ---- Who answers ----

local function add(region, direction, register)
  if register.face and register.face ~= direction then return end
  local faces = region[direction]
  for index = 0, (register.count or 1) - 1 do
    local at = register.at + index * (register.stride or 0)
    for byte = at, at + register.width - 1 do
      faces[byte] = faces[byte] or {}
      table.insert(faces[byte], { register = register, at = at, index = index })
    end
  end
end

-- Whether other registers follow this one.
local function leaders(layout)
  local set = {}
  local function note(register, follows)
    if not follows then return end
    set[follows:match "^[^.]*"] = true
    set[register.name] = true -- a field of the register itself, by its name alone
  end
  for _, register in ipairs(layout.registers) do
    note(register, register.follows)
    for _, field in ipairs(register.fields) do note(register, field.follows) end
  end
  return set
end

local function exact_masks(register)
  local masks = {}
  for _, name in ipairs { "rw", "ro", "w1c", "w1s", "w0c", "wc", "toggle", "rc", "rs", "hidden",
    "reserved" } do
    masks[name] = u64.exact(register.masks[name] or 0)
  end
  -- Bits that cannot be told from constant ones are taken for such.
  masks.const = band(masks.ro, bnot(masks.reserved))
  if #register.fields == 0 and register.access ~= "const" then masks.const = zero end
  -- Bits that a read takes from a function.
  masks.given = register.hooked.read and bits.all(register.width) or zero
  for _, field in ipairs(register.fields) do
    local mask = bits.mask(field.low, field.high - field.low + 1)
    if field.hooked.read then masks.given = bor(masks.given, mask) end
    if field.access ~= "const" then masks.const = band(masks.const, bnot(mask)) end
  end
  return masks
end

--- The shape of a device or class, for all its instances; `mapped` are the registers that are on
--- the bus.
function M.new(kind)
  local layout = device.layout(kind)
  local shape = { layout = layout, regions = {}, by = {}, mapped = {} }
  for _, region in ipairs(layout.regions) do
    shape.regions[region.name] = { read = {}, write = {}, about = region }
  end
  local leads = leaders(layout)
  for _, register in ipairs(layout.registers) do
    -- What a port does is what the registers do to which it leads.
    if register.port then register.hooked = { read = true, write = true } end
    register.exact = exact_masks(register)
    register.leads = leads[register.name] or false
    register.all = bits.all(register.width)
    shape.by[register.name] = register
    if register.at then
      shape.mapped[#shape.mapped + 1] = register
      for _, direction in ipairs { "read", "write" } do
        add(shape.regions[register.region], direction, register)
      end
    end
  end
  return shape
end

-- The face of a byte: of those with a `when`, the first that is true, else the one without.
local function owner(dev, faces, byte)
  local plain
  for _, face in ipairs(faces[byte] or {}) do
    local when = face.register.when
    if when and when(dev) then return face, true end
    if not when then plain = plain or face end
  end
  return plain, #(faces[byte] or {}) > 1
end

-- Whether a register's block function takes an access.
local function is_stream(dev, faces, direction, offset, size)
  for _, face in ipairs(faces[offset] or {}) do
    local register = face.register
    if face.at == offset and register.block and register.block[direction]
      and size > register.width and (not register.when or register.when(dev)) then
      return true
    end
  end
  return false
end

--- The parts of an access, lowest first: { at =, count =, face = (nil: nobody's), whole = }; and
--- whether who answers depends on a `when`. One that a block function takes is one part: { at =,
--- count =, stream = true }.
function M.parts(shape, dev, region, direction, offset, size)
  local faces, list, varies = shape.regions[region][direction], {}, false
  local at, stop = offset, offset + size
  if is_stream(dev, faces, direction, offset, size) then
    return { { at = offset, count = size, stream = true, whole = true } }, false
  end
  while at < stop do
    local face, depends = owner(dev, faces, at)
    varies = varies or depends or face ~= nil and face.register.when ~= nil
    local count = face and math.min(face.at + face.register.width, stop) - at or 1
    local whole = face ~= nil and count == face.register.width
    if face and not whole and face.register.narrow ~= "merge" then face = nil end
    list[#list + 1] = { at = at, count = count, face = face, whole = whole }
    at = at + count
  end
  return list, varies
end

-- ---- What accesses do ----

--- A register's value as a guest has it on the bus, and the other way round: in a big-endian region
--- the bytes are in the other order.
function M.on_bus(shape, register, value)
  if shape.regions[register.region].about.endian ~= "big" then return value end
  local list = bits.bytes(bits.plain(value, 8 * register.width), register.width)
  bits.swap(list, 1, register.width)
  return u64.exact(bits.value(list, register.width))
end

--- A register's value after a write of `value` over `old`.
function M.written(register, old, value)
  local m = register.exact
  local new = bor(band(old, bnot(m.rw)), band(value, m.rw))
  new = band(new, bnot(band(value, m.w1c)))
  new = bor(new, band(value, m.w1s))
  new = band(new, bor(value, bnot(m.w0c)))
  new = bxor(new, band(value, m.toggle))
  return band(new, bnot(m.wc))
end

--- A register's value after a read.
function M.left(register, old)
  return bor(band(old, bnot(register.exact.rc)), register.exact.rs)
end

--- What a write of some bytes, by their number in the register, means for the whole: the others
--- leave their bits alone.
function M.merged(register, old, bytes)
  local m = register.exact
  local neutral = bor(band(old, m.rw), m.w0c)
  if register.fifo then neutral = zero end
  local value = zero
  for i = 0, register.width - 1 do
    local byte = bytes[i] or u64.band(u64.rshift(neutral, 8 * i), 0xff)
    value = bor(value, u64.lshift(byte, 8 * i))
  end
  return value
end

--- A register's stored values, by the author's side: u64s from index 0; a FIFO's from index 1.
function M.stored(dev, register)
  local value = dev[register.name]
  local list = {}
  if register.fifo then
    for i, one in ipairs(value:list()) do list[i] = u64.exact(one) end
    return list
  end
  local fields = #register.fields > 0
  if not register.count then
    list[0] = u64.exact(fields and value.value or value)
    return list
  end
  for i = 0, register.count - 1 do
    list[i] = u64.exact(fields and value[i].value or value[i])
  end
  return list
end

--- A value for the author's side to store, as near to `wanted` as constant and reserved bits allow.
function M.allowed(register, present, wanted)
  local m = register.exact
  local free = band(register.all, bnot(bor(m.const, m.reserved)))
  return bor(band(wanted, free), band(present, m.const))
end

--- Stores a value by the author's side.
function M.store(dev, register, index, wanted)
  local value = M.allowed(register, M.stored(dev, register)[index], wanted)
  local given = register.width <= 4 and u64.tonumber(value) or value
  if register.count then
    dev[register.name][index] = given
  else
    dev[register.name] = given
  end
  return value
end

return M
