-- SPDX-License-Identifier: MIT
-- The tests that a device's table gives by itself: those of registers that are doors to others, a
-- sequence, a pair, or a bank.

local bits = require "lunavisor.device.bits"
local buses = require "lunavisor.testing.bus"
local models = require "lunavisor.testing.model"
local shapes = require "lunavisor.testing.shape"
local u64 = require "lunavisor.text.u64"

local band, bnot, zero = u64.band, u64.bnot, bits.zero

local M = {}

-- Values of so many bytes, no two bytes of which are the same.
local function values(width)
  local list = {}
  for turn = 1, 4 do
    local bytes = {}
    for i = 1, width do bytes[i] = (0x11 * turn + 0x1d * i) % 256 end
    list[turn] = u64.exact(bits.value(bytes, width))
  end
  return list
end

-- What is done to a port, and what it raises as an error; the value of a read.
local function perform(bus, self, register, value)
  local ok, given = models.perform(bus, { region = register.region, offset = register.at,
    size = register.width, value = value and shapes.on_bus(self.shape, register, value) })
  if not ok then
    error({ wrong = ("a %s of %s raises: %s"):format(value and "write" or "read", register.name,
      tostring(given)) }, 0)
  end
  return not value and shapes.on_bus(self.shape, register, u64.exact(given)) or nil
end

-- Whether the table says all of what a write, or a read, does to a register.
local function plain_write(register)
  if register.hooked.write or register.leads or register.fifo or register.count then
    return false
  end
  for _, field in ipairs(register.fields) do if field.follows then return false end end
  return true
end

local function plain_read(register)
  return register.exact.given == zero and not register.fifo and not register.count
end

local function shown(register, value)
  return band(value, bnot(register.exact.hidden))
end

local function stored(bus, register)
  return shapes.stored(bus.device, register)[0]
end

-- ---- Pairs ----

-- The bytes of a value in the order in which they come.
local function bytes_of(register, target, value)
  local list = {}
  for n = 0, target.width - 1 do
    local place = register.leads_to.high_first and target.width - n or n + 1
    list[place] = band(u64.rshift(value, 8 * n), 0xff)
  end
  return list
end

local function pair_read(self, register, bus)
  local target = self.shape.by[register.leads_to.target]
  for _, wanted in ipairs(values(target.width)) do
    local value = shapes.store(bus.device, target, 0, wanted)
    bus.device:start(register.name)
    for n, byte in ipairs(bytes_of(register, target, shown(target, value))) do
      local given = perform(bus, self, register)
      if given ~= byte then
        return ("read %d of %s gave %s, and %s is %s"):format(n, register.name, u64.hex(given),
          target.name, u64.hex(value))
      end
    end
    local left = stored(bus, target)
    if left ~= shapes.left(target, value) then
      return ("reading %s of %s left %s"):format(target.name, u64.hex(value), u64.hex(left))
    end
  end
  return nil
end

local function pair_written(self, register, bus)
  local target = self.shape.by[register.leads_to.target]
  for _, value in ipairs(values(target.width)) do
    local old = stored(bus, target)
    bus.device:start(register.name)
    for _, byte in ipairs(bytes_of(register, target, value)) do
      perform(bus, self, register, byte)
    end
    local wanted, new = shapes.written(target, old, value), stored(bus, target)
    if new ~= wanted then
      return ("%s: the bytes of %s left %s in %s, not %s"):format(register.name, u64.hex(value),
        u64.hex(new), target.name, u64.hex(wanted))
    end
  end
  return nil
end

-- ---- Sequences ----

-- A write to the port that is to reach a register.
local function reaches(self, register, bus, target, value)
  local old = stored(bus, target)
  perform(bus, self, register, value)
  local new, wanted = stored(bus, target), shapes.written(target, old, value)
  if plain_write(target) and new ~= wanted then
    return ("a write of %s to %s left %s in %s, not %s"):format(u64.hex(value), register.name,
      u64.hex(new), target.name, u64.hex(wanted))
  end
  return nil
end

local function sequence(self, register, bus)
  local port, by = register.leads_to, self.shape.by
  for _, value in ipairs(values(register.width)) do
    bus.device:start(register.name)
    for _, step in ipairs(port.steps) do
      if not step.when or step.when(bus.device) then
        local wrong = reaches(self, register, bus, by[step.name], value)
        if wrong then return "sequence: " .. wrong end
      end
    end
    local rest = port.rest and by[port.rest]
    local wrong = rest and reaches(self, register, bus, rest, value)
    if wrong then return "behind the sequence: " .. wrong end
    if rest and plain_read(rest) then
      local wanted, given = shown(rest, stored(bus, rest)), perform(bus, self, register)
      if given ~= wanted then
        return ("a read of %s gave %s, and %s is %s"):format(register.name, u64.hex(given),
          rest.name, u64.hex(wanted))
      end
    end
  end
  return nil
end

-- ---- Banks ----

-- Sets the index and says what it is then, and what an access makes of it.
local function set_index(dev, layout_of, port, number)
  local name, field = port.index:match "^([^.]+)%.?(.*)$"
  local register = layout_of[name]
  local count = 8 * register.width
  for _, about in ipairs(register.fields) do
    if about.name == field then count = about.high - about.low + 1 end
  end
  if number >= 2 ^ count then return nil end
  if field ~= "" then
    dev[name][field] = number
  elseif #register.fields > 0 then
    dev[name].value = number
  else
    dev[name] = number
  end
  return function()
    local now = dev[name]
    if field ~= "" then return now[field] end
    return #register.fields > 0 and now.value or now
  end, (number + port.step) % 2 ^ count
end

local function differs(one, other, index)
  for name, value in pairs(one.registers) do
    if name ~= index and type(value) ~= "table" and value ~= other.registers[name] then
      return name
    end
  end
  return nil
end

-- Another bus with a device in the same state.
local function twin(self, bus)
  local other = buses.new(self.make, { memory = self.memory })
  assert(other.device:load(bus.device:save()))
  other.store:copy(bus.store)
  return other
end

local function bank(self, register, bus)
  local port, shape = register.leads_to, self.shape
  local about = shape.regions[port.region].about
  local index_name = port.index:match "^[^.]+"
  local last = math.floor((about.size - register.width) / about.width)
  for number = 0, math.min(last, 255) do
    for _, value in ipairs { false, values(register.width)[number % 4 + 1] } do
      local other = twin(self, bus)
      local index, following = set_index(bus.device, shape.by, port, number)
      if not index then return nil end
      set_index(other.device, shape.by, port, number)
      local given = perform(bus, self, register, value or nil)
      local ok, direct = models.perform(other, { region = port.region,
        offset = number * about.width, size = register.width, value = value or nil })
      if not ok then return nil end
      if not value and given ~= u64.exact(direct) then
        return ("a read of %s gave %s, and %s of region %s at index %d"):format(register.name,
          u64.hex(given), u64.hex(direct), port.region, number)
      end
      local name = differs(bus.device:save(), other.device:save(), index_name)
      if name then
        return ("an access to %s does another thing to %s than one to region %s at index %d")
          :format(register.name, name, port.region, number)
      end
      if port.step > 0 and index() ~= following then
        return ("an access to %s with index %d left %d in %s"):format(register.name, number,
          index(), port.index)
      end
    end
  end
  return nil
end

-- ---- The list ----

--- Adds the tests of a port: add(name, function () -> what is wrong, or nil). ready(self, register,
--- direction) gives a bus whose device answers there, or nil.
function M.register(self, register, add, ready)
  local target = register.leads_to.target and self.shape.by[register.leads_to.target]
  local function test(what, direction, fn)
    if register.face and register.face ~= direction then return end
    add(("%s %s"):format(register.name, what), function()
      local bus = ready(self, register, direction)
      if not bus then return nil end
      local ok, wrong = pcall(fn, self, register, bus)
      if ok then return wrong end
      if type(wrong) ~= "table" then error(wrong, 0) end
      return wrong.wrong
    end)
  end
  if register.port == "sequence" then
    test("leads through its sequence", "write", sequence)
  elseif register.port == "bank" then
    test("leads to its bank", "read", bank)
  else
    if plain_read(target) then test("gives the bytes of " .. target.name, "read", pair_read) end
    if plain_write(target) then
      test("takes the bytes of " .. target.name, "write", pair_written)
    end
  end
end

return M
