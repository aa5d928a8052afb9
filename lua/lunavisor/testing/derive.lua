-- SPDX-License-Identifier: MIT
-- The tests that a device's table gives by itself: those of each register. What a register's own
-- functions do is the author's to test; that they raise nothing and keep to the table is here.

local bits = require "lunavisor.device.bits"
local buses = require "lunavisor.testing.bus"
local models = require "lunavisor.testing.model"
local ports = require "lunavisor.testing.port"
local shapes = require "lunavisor.testing.shape"
local u64 = require "lunavisor.text.u64"

local band, bor, bnot = u64.band, u64.bor, u64.bnot
local zero = bits.zero

local M = {}

-- ---- A device with the register in reach ----

local function bus_of(self)
  return buses.new(self.make, { memory = self.memory })
end

-- Lets the register answer, where it has a `when`: by any one bit or value of another register. Nil
-- where nothing helps.
local function arrange(self, dev, register)
  if not register.when or register.when(dev) then return true end
  for _, other in ipairs(self.shape.layout.registers) do
    if not other.fifo and other ~= register then
      local present = shapes.stored(dev, other)[0]
      for bit = 0, 8 * other.width - 1 do
        shapes.store(dev, other, 0, u64.bxor(present, u64.lshift(1, bit)))
        if register.when(dev) then return true end
        shapes.store(dev, other, 0, present)
      end
      for value = 0, math.min(255, 2 ^ (8 * other.width) - 1) do
        shapes.store(dev, other, 0, u64.exact(value))
        if register.when(dev) then return true end
      end
      shapes.store(dev, other, 0, present)
    end
  end
  return nil
end

-- Whether the register is the one that answers a whole access now.
local function answers(self, dev, register, direction, index)
  if not register.at or register.face and register.face ~= direction then return false end
  local parts = shapes.parts(self.shape, dev, register.region, direction,
    register.at + index * (register.stride or 0), register.width)
  return #parts == 1 and parts[1].face ~= nil and parts[1].face.register == register
end

local function access_of(self, register, index, value)
  value = value and shapes.on_bus(self.shape, register, value)
  return { region = register.region, offset = register.at + index * (register.stride or 0),
    size = register.width, value = value }
end

-- A bus with a device whose register answers; nil where it cannot be brought to that.
local function ready(self, register, direction)
  local bus = bus_of(self)
  if not arrange(self, bus.device, register) then return nil end
  if not answers(self, bus.device, register, direction, 0) then return nil end
  return bus
end

-- ---- Reset values ----

local function reset(self, register)
  local bus = bus_of(self)
  for index, value in pairs(shapes.stored(bus.device, register)) do
    local wanted = register.resets and register.resets[index] or register.reset
    if value ~= u64.exact(wanted) then
      return ("%s is %s in a new device, and the table says %s"):format(register.name,
        u64.hex(value), u64.hex(wanted)) .. (register.count and (" (element %d)"):format(
        index) or "")
    end
  end
  if not answers(self, bus.device, register, "read", 0) or register.fifo then return nil end
  return models.new(self.shape, bus):access(access_of(self, register, 0))
end

-- ---- Bits by their access ----

local function patterns(width)
  local all = bits.all(width)
  local list = { all, zero, band(all, bits.mask(0, 4 * width)) }
  for bit = 0, 8 * width - 1 do list[#list + 1] = u64.lshift(1, bit) end
  for bit = 0, 8 * width - 1 do list[#list + 1] = band(all, bnot(u64.lshift(1, bit))) end
  return list
end

-- What is checked of a mask's bits by writing: all are set or cleared by the author's side first.
local writes = {
  rw = "keep what is written",
  w1c = "are cleared by writing 1 and left by writing 0",
  w1s = "are set by writing 1 and left by writing 0",
  w0c = "are cleared by writing 0 and left by writing 1",
  wc = "are cleared by any write",
  toggle = "change by writing 1 and stay by writing 0",
  ro = "are left by any write",
  rc = "are left by any write",
  rs = "are left by any write",
}

local function by_writing(self, register, name)
  local mask = register.exact[name]
  local bus = ready(self, register, "write")
  if not bus then return nil end
  for _, start in ipairs { bits.all(register.width), zero } do
    for _, value in ipairs(patterns(register.width)) do
      local old = shapes.store(bus.device, register, 0, start)
      if not answers(self, bus.device, register, "write", 0) then break end
      local ok, why = models.perform(bus, access_of(self, register, 0, value))
      if not ok then return ("a write of %s raises: %s"):format(u64.hex(value), tostring(why)) end
      local new, wanted = shapes.stored(bus.device, register)[0],
        shapes.written(register, old, value)
      if band(new, mask) ~= band(wanted, mask) then
        return ("%s: a write of %s over %s left %s, not %s (bits %s %s)"):format(register.name,
          u64.hex(value), u64.hex(old), u64.hex(band(new, mask)), u64.hex(band(wanted, mask)),
          u64.hex(mask), writes[name])
      end
    end
  end
  return nil
end

local function by_reading(self, register, name)
  local mask = register.exact[name]
  local bus = ready(self, register, "read")
  if not bus then return nil end
  for _, start in ipairs(patterns(register.width)) do
    local old = shapes.store(bus.device, register, 0, start)
    if not answers(self, bus.device, register, "read", 0) then break end
    local ok, why = models.perform(bus, access_of(self, register, 0))
    if not ok then return ("a read of %s raises: %s"):format(u64.hex(old), tostring(why)) end
    local new = shapes.stored(bus.device, register)[0]
    if band(new, mask) ~= band(shapes.left(register, old), mask) then
      return ("%s: a read of %s left %s in bits %s"):format(register.name, u64.hex(old),
        u64.hex(band(new, mask)), u64.hex(mask))
    end
  end
  return nil
end

-- Bits that no function of the register may touch either: reserved ones read as zero.
local function reserved(self, register)
  local mask = band(register.exact.reserved, register.exact.hidden)
  local bus = ready(self, register, register.face or "write")
  if not bus then return nil end
  for _, value in ipairs(patterns(register.width)) do
    if register.face ~= "read" then models.perform(bus, access_of(self, register, 0, value)) end
    local stored = shapes.stored(bus.device, register)[0]
    local ok, given = models.perform(bus, access_of(self, register, 0))
    local shown = ok and answers(self, bus.device, register, "read", 0)
      and shapes.on_bus(self.shape, register, u64.exact(given)) or zero
    if band(bor(stored, shown), mask) ~= zero then
      return ("%s: after a write of %s, reserved bits %s are %s"):format(register.name,
        u64.hex(value), u64.hex(mask), u64.hex(band(bor(stored, shown), mask)))
    end
  end
  return nil
end

-- ---- Widths ----

-- The elements of an array that stand for all.
local function some(register)
  local last = (register.count or 1) - 1
  local list = { 0 }
  if last >= 1 then list[#list + 1] = 1 end
  if last >= 2 then list[#list + 1] = last end
  return list
end

--- Calls fn(access, a read) for every width at every offset that has a byte of the register.
local function each_access(self, register, fn)
  local size_of_region = self.shape.regions[register.region].about.size
  for _, index in ipairs(some(register)) do
    local at = register.at + index * (register.stride or 0)
    for _, size in ipairs { 1, 2, 4, 8 } do
      for offset = math.max(0, at - size + 1), at + register.width - 1 do
        if offset + size <= size_of_region then
          local wrong = fn { region = register.region, offset = offset, size = size }
          if wrong then return wrong end
        end
      end
    end
  end
  return nil
end

local function widths(self, register, direction)
  local bus = bus_of(self)
  if not arrange(self, bus.device, register) then return nil end
  local model = models.new(self.shape, bus)
  local turn = 0
  return each_access(self, register, function(access)
    turn = turn + 1
    if direction == "write" then
      access.value = band(u64(0x8badf00d * turn % 2 ^ 32, 0x12345679 * turn % 2 ^ 32),
        bits.all(access.size))
    end
    return model:access(access)
  end)
end

local function read_widths(self, register) return widths(self, register, "read") end
local function write_widths(self, register) return widths(self, register, "write") end

-- A register that has functions of its own takes whatever a guest writes.
local function any_value(self, register)
  local bus = ready(self, register, "write")
  if not bus then return nil end
  local list = patterns(register.width)
  for value = 0, 255 do list[#list + 1] = u64.exact(value) end
  for _, value in ipairs(list) do
    local ok, why = models.perform(bus, access_of(self, register, 0, value))
    if not ok then
      return ("a write of %s to %s raises: %s"):format(u64.hex(value), register.name, tostring(why))
    end
    if register.face ~= "write" then
      ok, why = models.perform(bus, access_of(self, register, 0))
      if not ok then
        return ("a read of %s after a write of %s raises: %s"):format(register.name,
          u64.hex(value), tostring(why))
      end
    end
  end
  return nil
end

-- ---- The list ----

--- Adds the tests of a register: add(name, function () -> what is wrong, or nil).
function M.register(self, register, add)
  local function test(what, fn, ...)
    local more = ...
    add(register.name .. " " .. what, function() return fn(self, register, more) end)
  end
  if not register.follows then test("has its reset value", reset) end
  if not register.at then return end
  if register.port then ports.register(self, register, add, ready) end
  local own = register.hooked.write or register.leads or register.follows ~= nil
  for _, field in ipairs(register.fields) do own = own or field.follows ~= nil end
  if not register.fifo then
    for _, name in ipairs { "rw", "ro", "w1c", "w1s", "w0c", "wc", "toggle", "rc", "rs" } do
      if register.exact[name] ~= zero and not own and register.face ~= "read" then
        test(("bits %s %s"):format(u64.hex(register.exact[name]), writes[name]), by_writing, name)
      end
    end
    for _, name in ipairs { "rc", "rs" } do
      if register.exact[name] ~= zero and register.face ~= "write" then
        test(("bits %s are %s by a read"):format(u64.hex(register.exact[name]),
          name == "rc" and "cleared" or "set"), by_reading, name)
      end
    end
    if band(register.exact.reserved, register.exact.hidden) ~= zero and not register.port then
      test("reads reserved bits as zero", reserved)
    end
  end
  if register.face ~= "write" then test("is read in every width and alignment", read_widths) end
  if register.face ~= "read" then
    test("is written in every width and alignment", write_widths)
    if register.hooked.write or register.hooked.read then test("takes any value", any_value) end
  end
end

M.bus = bus_of

return M
