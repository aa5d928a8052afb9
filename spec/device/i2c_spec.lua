-- SPDX-License-Identifier: MIT
-- Pins, the I2C bus and the EEPROM on it, moved bit by bit as a driver does: against UM10204 and
-- the datasheet of the AT24C02.

local device = require "lunavisor.device"
local eeprom24c02 = require "lunavisor.device.models.eeprom24c02"
local gpio = require "lunavisor.device.models.gpio"
local helper = require "spec.support.helper"
local i2c = require "lunavisor.device.models.i2c"
local random = require "spec.support.device"

local pins, rom, bus, clock

-- ---- A driver: pin 0 is the clock, pin 1 the data, both open drain ----

local SCL, SDA = 1, 2
local direction

local function move(pin, high)
  local driven = math.floor(direction / pin) % 2 == 1
  if driven == high then direction = direction + (high and -pin or pin) end
  pins:write(1, 1, direction)
end

local function sda() return math.floor(pins:read(2, 1) / SDA) % 2 end

local function start()
  move(SDA, true)
  move(SCL, true)
  move(SDA, false)
  move(SCL, false)
end

local function stop()
  move(SDA, false)
  move(SCL, true)
  move(SDA, true)
end

local function pulse(high)
  move(SDA, high)
  move(SCL, true)
  local bit = sda()
  move(SCL, false)
  return bit
end

-- Whether the byte is acknowledged.
local function send(byte)
  for bit = 7, 0, -1 do pulse(math.floor(byte / 2 ^ bit) % 2 == 1) end
  return pulse(true) == 0
end

local function receive(acknowledge)
  local byte = 0
  for _ = 1, 8 do byte = byte * 2 + pulse(true) end
  pulse(not acknowledge)
  return byte
end

local function write(at, ...)
  start()
  local taken = send(0xa0) and send(at)
  for _, byte in ipairs { ... } do taken = send(byte) and taken end
  stop()
  return taken
end

local function read(at, count)
  start()
  send(0xa0)
  send(at)
  start()
  assert.is_true(send(0xa1))
  local list = {}
  for i = 1, count do list[i] = receive(i < count) end
  stop()
  return list
end

before_each(function()
  clock, direction = device.clock(), 0
  pins, bus = gpio { log = false }, i2c.bus()
  rom = bus:add(eeprom24c02 { clock = clock, data = "abc", log = false })
  bus:pins(pins, 0, 1)
end)

describe("pins", function()
  it("are driven, or seen", function()
    pins:write(0, 1, 0xf0)
    pins:write(1, 1, 0xcc)
    assert.same({ true, false, false, false },
      { pins.lines.high7, pins.lines.low7, pins.lines.high5, pins.lines.low5 })
    assert.same({ false, true }, { pins.lines.high3, pins.lines.low3 })
    pins.inputs[4]:set(true)
    assert.equal(0xd3, pins:read(2, 1))
  end)
end)

describe("the bus", function()
  it("is low while anybody pulls it", function()
    assert.equal(3, pins:read(2, 1))
    local other = bus.sda
    move(SDA, false)
    assert.is_true(other.level)
    assert.equal(1, pins:read(2, 1))
    move(SDA, true)
    assert.is_false(other.level)
  end)

  it("has devices by their addresses", function()
    bus:add(eeprom24c02 { clock = clock, address = 3, data = "second" })
    start()
    assert.is_true(send(0xa1))
    assert.equal(97, receive(false))
    start()
    assert.is_true(send(0xa7))
    assert.equal(115, receive(false))
    start()
    assert.is_false(send(0xa2))
    stop()
  end)

  it("is a class of its own", function()
    helper.raises("an i2c bus has no ", function() return bus.add_ end)
    assert.equal("i2c bus", tostring(bus))
  end)
end)

describe("the EEPROM", function()
  it("is read from an address on, and round its end", function()
    assert.same({ 97, 98, 99, 255 }, read(0, 4))
    assert.same({ 255, 97 }, read(255, 2))
    start()
    send(0xa1)
    assert.equal(98, receive(false))
    stop()
  end)

  it("is written within a page, at the STOP", function()
    assert.is_true(write(0x0e, 1, 2, 3))
    clock:advance(0.005)
    assert.same({ 3, 255 }, read(8, 2))
    assert.same({ 1, 2, 255 }, read(14, 3))
    start()
    send(0xa0)
    send(0)
    send(0x77)
    assert.equal("abc", rom:data():sub(1, 3))
    stop()
    assert.equal("wbc", rom:data():sub(1, 3))
  end)

  it("does not answer while it writes", function()
    write(0, 0x41)
    assert.is_false(write(0))
    clock:advance(0.0049)
    assert.is_false(write(0))
    clock:advance(0.0002)
    assert.is_true(write(0))
    assert.same({ 0x41 }, read(0, 1))
  end)

  it("is not written while it is protected, nor where a START takes the STOP's place", function()
    rom.inputs.write_protect:set(true)
    assert.is_false(write(0, 0x55))
    rom.inputs.write_protect:set(false)
    start()
    send(0xa0)
    send(0)
    send(0x55)
    start()
    stop()
    assert.equal("abc", rom:data():sub(1, 3))
  end)

  it("keeps its data over a reset, and a transfer in its state", function()
    write(1, 0x42)
    clock:advance(1)
    rom:reset()
    assert.equal("aBc", rom:data():sub(1, 3))
    start()
    send(0xa0)
    for bit = 1, 4 do pulse(bit == 4) end
    local saved = rom:save()
    rom:reset()
    assert(rom:load(saved))
    for _ = 1, 4 do pulse(false) end
    assert.equal(0, pulse(true))
    assert.is_true(send(0x99))
    stop()
    assert.equal("\153", rom:data():sub(17, 17))
  end)

  it("takes no address and data that it cannot have", function()
    helper.raises("eeprom24c02: address: from 0 to 7 expected, got 8",
      function() eeprom24c02 { address = 8 } end)
    helper.raises("eeprom24c02: data: a string of up to 256 bytes expected",
      function() eeprom24c02 { data = ("x"):rep(257) } end)
  end)
end)

random.describe("gpio", function(log)
  local made = gpio { log = log }
  local wires = i2c.bus()
  wires:pins(made, 0, 1)
  wires:add(eeprom24c02 { log = log })
  return made
end)

describe("a script's controller", function()
  local i2c_master = require "lunavisor.device.models.i2c_master"
  local wires, master

  before_each(function()
    wires = i2c.bus()
    wires:add(eeprom24c02 { data = "abcdef", log = false, clock = device.clock() })
    master = i2c_master.new(wires)
  end)

  it("reads and writes, from START to STOP", function()
    assert.same({ 0x63, 0x64 }, master:read(0x50, 2, 2))
    assert.same({ 0x65 }, master:read(0x50, 1))
    assert.equal(3, master:write(0x50, 4, 0x58, 0x59))
    assert.is_nil(master:write(0x50, 0)) -- it is busy writing
    assert.is_nil(master:read(0x50, 1, 0))
    assert.is_nil(master:read(0x50, 1))
    assert.is_nil(master:write(0x51, 0))
    assert.same({ false, false }, { wires.scl.level and true or false, wires.sda.level })
  end)

  it("counts what was acknowledged", function()
    local other = i2c.bus()
    local chip = other:add(eeprom24c02 { log = false })
    chip.inputs.write_protect:set(true)
    assert.equal(1, i2c_master.new(other):write(0x50, 0, 1, 2))
  end)

  it("meets devices whose function says nothing at a START, and one that says false", function()
    local other, busy = i2c.bus(), nil
    other:add(device "plain" (i2c.device({ address = function() return 8 end,
      start = function() return busy end, read = function() return 7 end,
      write = function() end }, { registers = {} })) { log = false })
    local own = i2c_master.new(other)
    assert.same({ 7 }, own:read(8, 1, 0))
    busy = false
    assert.is_nil(own:read(8, 1))
  end)

  it("refuses what is no address, byte or count", function()
    helper.raises("master:write: an address expected, from 0 to 0x7f, got 160",
      function() master:write(0xa0, 0) end)
    helper.raises("master:send: a byte expected, from 0 to 0xff, got 256",
      function() master:send(256) end)
    helper.raises("master:read: a number of bytes expected", function() master:read(0x50, -1) end)
    helper.raises("call it with a colon", function() master.start(5) end)
  end)
end)
