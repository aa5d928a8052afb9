-- SPDX-License-Identifier: MIT
-- A device beside the model that its table is: each access goes to both, and what the table
-- foretells must be so. What the device's own functions do is taken over from the device.

local bits = require "lunavisor.device.bits"
local buses = require "lunavisor.testing.bus"
local shapes = require "lunavisor.testing.shape"
local u64 = require "lunavisor.text.u64"

local band, bnot = u64.band, u64.bnot
local zero = bits.zero

local M = {}

local Model = {}
Model.__index = Model

--- A model of the device on a bus, in its present state.
function M.new(shape, bus)
  local self = setmetatable({ shape = shape, bus = bus, dev = bus.device, values = {} }, Model)
  self:sync()
  return self
end

--- Takes over what the device stores.
function Model.sync(self)
  for _, register in ipairs(self.shape.layout.registers) do
    self.values[register.name] = shapes.stored(self.dev, register)
  end
end

local function name_of(register, index)
  return register.count and ("%s[%d]"):format(register.name, index) or register.name
end

--- Where the device stores something else than the model; nil where nowhere.
function Model.differs(self)
  for _, register in ipairs(self.shape.layout.registers) do
    local mine, theirs = self.values[register.name], shapes.stored(self.dev, register)
    local first, last = 0, (register.count or 1) - 1
    if register.fifo then
      if #mine ~= #theirs then
        return ("FIFO %s holds %d values, not %d"):format(register.name, #theirs, #mine)
      end
      first, last = 1, #mine
    end
    for i = first, last do
      if mine[i] ~= theirs[i] then
        return ("%s is %s, not %s"):format(name_of(register, i), u64.hex(theirs[i]),
          u64.hex(mine[i]))
      end
    end
  end
  return nil
end

-- ---- Lines ----

-- The register of "ISR" or "ISR.done" and its value under the field's mask.
local function looked_at(self, text)
  local name, field = text:match "^([^.]+)%.?(.*)$"
  local register = self.shape.by[name]
  local mask = register.all
  for _, about in ipairs(register.fields) do
    if about.name == field then mask = bits.mask(about.low, about.high - about.low + 1) end
  end
  return band(shapes.stored(self.dev, register)[0], mask), field ~= ""
end

--- The level that the rule of a line gives for what the device stores.
function Model.level(self, rule)
  local value = looked_at(self, rule.status)
  if rule.mask then value = band(value, rule.mask) end
  if rule.enable then
    local enable, is_field = looked_at(self, rule.enable)
    if is_field then
      if enable == zero then return false end
    else
      value = band(value, enable)
    end
  end
  return value ~= zero and (not rule.gate or (looked_at(self, rule.gate)) ~= zero)
end

--- A line that is not as its rule says; nil where none is.
function Model.wrong_line(self)
  for _, line in ipairs(self.shape.layout.lines) do
    if line.rule and self:level(line.rule) ~= self.dev.lines[line.name] then
      return ("line %s is %s, against its rule"):format(line.name,
        self.dev.lines[line.name] and "up" or "down")
    end
  end
  return nil
end

-- ---- What an access is to give and leave ----

-- Bytes 0 to width - 1 of a register's value, in the order of the bus.
local function bytes_of(value, register, big)
  local list, last = {}, register.width - 1
  for i = 0, last do
    list[big and last - i or i] = u64.tonumber(band(u64.rshift(value, 8 * i), 0xff))
  end
  return list
end

-- A value's bytes for a part of an access, by their number in the register.
local function part_bytes(part, offset, value, big)
  local bytes, register = {}, part.face.register
  for i = 0, part.count - 1 do
    local number = part.at + i - part.face.at
    if big then number = register.width - 1 - number end
    bytes[number] = u64.tonumber(band(u64.rshift(value, 8 * (part.at + i - offset)), 0xff))
  end
  return bytes
end

-- The value and the known bits of a read of a register; its effects are the model's.
local function read_register(self, face)
  local register = face.register
  local list, m = self.values[register.name], register.exact
  local value
  if register.fifo then
    value = table.remove(list, 1) or u64.exact(register.reset)
  else
    value = list[face.index]
    list[face.index] = shapes.left(register, value)
  end
  local known = bnot(band(m.given, bnot(m.hidden)))
  return band(value, bnot(m.hidden)), band(known, register.all)
end

local function write_register(self, part, offset, value, big)
  local register, index = part.face.register, part.face.index
  local list = self.values[register.name]
  local whole = shapes.merged(register, list[index] or zero, part_bytes(part, offset, value, big))
  if not register.fifo then
    list[index] = shapes.written(register, list[index], whole)
  elseif #list < register.fifo and register.exact.rw ~= zero then
    list[#list + 1] = whole
  end
end

-- What nobody owns: the byte that is read there, nil where it cannot be known.
local nobody = { ones = 255, zeros = 0 }

local function foretell(self, access, parts)
  local about = self.shape.regions[access.region].about
  local big = about.endian == "big"
  local answer = { bytes = {}, known = {}, own = false, unknown = false }
  for _, part in ipairs(parts) do
    local register = part.face and part.face.register
    local own = about.whole or part.stream
    if not register and own then
      answer.own = true
    elseif not register then
      answer.unknown = true
      answer.own = answer.own or type(about.unknown) == "function"
    else
      answer.own = answer.own or register.leads or register.hooked.write
        or register.exact.given ~= zero
    end
    if access.value then
      if register then write_register(self, part, access.offset, access.value, big) end
    else
      local value, known, mask
      if register then
        value, mask = read_register(self, part.face)
        value, known = bytes_of(value, register, big), bytes_of(mask, register, big)
      end
      for i = 0, part.count - 1 do
        local at, inner = part.at + i - access.offset, register and part.at + i - part.face.at
        local unowned = not own and nobody[about.unknown] or nil
        answer.bytes[at] = register and value[inner] or unowned or 0
        answer.known[at] = register and known[inner] or unowned and 255 or 0
      end
    end
  end
  return answer
end

local function check_read(access, answer, value)
  if u64.exact(value) == nil then
    return ("gave %s, which is no value"):format(tostring(value))
  end
  local wanted, known = bits.zero, bits.zero
  for i = 0, access.size - 1 do
    wanted = u64.bor(wanted, u64.lshift(answer.bytes[i], 8 * i))
    known = u64.bor(known, u64.lshift(answer.known[i], 8 * i))
  end
  if access.size < 8 and u64.rshift(value, 8 * access.size) ~= zero then
    return ("gave %s, which has more than %d bytes"):format(u64.hex(value), access.size)
  elseif band(value, known) ~= band(wanted, known) then
    return ("gave %s, not %s%s"):format(u64.hex(value), u64.hex(wanted),
      known == bits.all(access.size) and "" or (" (under the mask %s)"):format(u64.hex(known)))
  end
  return nil
end

--- Does an access to a bus: true and the value, or false and what it raised.
function M.perform(bus, access)
  local place = { region = access.region, offset = access.offset }
  if not access.value then return pcall(buses.read_at, bus, place, access.size) end
  return pcall(buses.write_at, bus, place, access.size,
    access.size <= 4 and u64.tonumber(access.value) or access.value)
end

--- An access as text: "write16 of 0x1234 to ISR (offset 0x24)".
function M.text(shape, access)
  local direction = access.value and "write" or "read"
  local faces = shape.regions[access.region][direction][access.offset]
  local name = faces and name_of(faces[1].register, faces[1].index)
  local size = ("%d-byte "):format(access.size)
  return ("%s%s at %s"):format(size .. direction,
    access.value and " of " .. u64.hex(access.value) or "",
    name and ("%s (offset 0x%x)"):format(name, access.offset)
    or ("offset 0x%x"):format(access.offset))
end

--- Does an access { region =, offset =, size =, value = (a u64; nil: a read) } to the device and
--- the model; what is not as foretold as text, nil where all is.
function Model.access(self, access)
  local parts, varies = shapes.parts(self.shape, self.dev, access.region,
    access.value and "write" or "read", access.offset, access.size)
  local answer = foretell(self, access, parts)
  local ok, value = M.perform(self.bus, access)
  local refuses = answer.unknown
    and self.shape.regions[access.region].about.unknown == "error"
  if ok == refuses then
    self:sync()
    return ok and M.text(self.shape, access) .. " raises no error, where no register is"
      or M.text(self.shape, access) .. " raises an error: " .. tostring(value)
  elseif not ok then
    self:sync()
    return nil
  end
  local wrong = not access.value and not (varies and #parts > 1)
    and check_read(access, answer, value) or nil
  if answer.own or varies then
    self:sync()
  else
    local stored = self:differs()
    wrong = wrong or stored and "left a difference: " .. stored or nil
  end
  local line = not wrong and self:wrong_line()
  wrong = wrong or line and "left a difference: " .. line or nil
  return wrong and M.text(self.shape, access) .. " " .. wrong or nil
end

return M
