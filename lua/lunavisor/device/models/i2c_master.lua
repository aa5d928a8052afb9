-- SPDX-License-Identifier: MIT
-- The controller's side of an I2C bus (i2c.lua), moved by a script: what a spec of a device on it
-- needs in the place of a guest. By NXP's UM10204.

local class = require "lunavisor.class"
local device = require "lunavisor.device"

local M = {}

local Master = class.class("i2c master", "master")
local mine = class.checker(Master)
local methods = {}

--- A controller on a bus of i2c.bus().
function M.new(bus)
  local made = setmetatable({ bus = bus, scl = device.line "master.scl",
    sda = device.line "master.sda" }, Master)
  made.scl:connect(bus.scl)
  made.sda:connect(bus.sda)
  return made
end

-- The wires are up while they are pulled low. A clock: the bit that is on the wire meanwhile.
local function clock(self, bit)
  self.sda:set(bit == 0)
  self.scl:set(false)
  local level = self.bus.sda.level
  self.scl:set(true)
  return level and 0 or 1
end

--- START, or START again in the middle of a transfer.
function methods.start(self)
  mine(self)
  self.sda:set(false)
  self.scl:set(false)
  self.sda:set(true)
  self.scl:set(true)
end

--- STOP: the bus is free.
function methods.stop(self)
  mine(self)
  self.sda:set(true)
  self.scl:set(false)
  self.sda:set(false)
end

local function check_byte(what, byte, most)
  if type(byte) ~= "number" or byte < 0 or byte > most or byte % 1 ~= 0 then
    error(("%s expected, from 0 to 0x%x, got %s"):format(what, most, tostring(byte)), 3)
  end
end

--- Sends a byte; whether it was acknowledged.
function methods.send(self, byte)
  mine(self)
  check_byte("master:send: a byte", byte, 255)
  for bit = 7, 0, -1 do clock(self, math.floor(byte / 2 ^ bit) % 2) end
  return clock(self, 1) == 0
end

--- Receives a byte, which is acknowledged unless it is the last one.
function methods.receive(self, last)
  mine(self)
  local byte = 0
  for _ = 1, 8 do byte = byte * 2 + clock(self, 1) end
  clock(self, last and 1 or 0)
  return byte
end

--- Writes bytes to the device with an address of seven bits: START to STOP. How many were
--- acknowledged; nil where nobody has that address.
function methods.write(self, address, ...)
  mine(self)
  check_byte("master:write: an address", address, 127)
  methods.start(self)
  local taken
  if methods.send(self, 2 * address) then
    taken = 0
    for _, byte in ipairs { ... } do
      if not methods.send(self, byte) then break end
      taken = taken + 1
    end
  end
  methods.stop(self)
  return taken
end

--- Reads so many bytes as a list; with `from`, after that byte was written, as of a register's
--- address. nil where nobody has that address, or it refuses `from`.
function methods.read(self, address, count, from)
  mine(self)
  check_byte("master:read: an address", address, 127)
  check_byte("master:read: a number of bytes", count, 2 ^ 24)
  local list
  if from then
    methods.start(self)
    local taken = methods.send(self, 2 * address) and methods.send(self, from)
    if not taken then
      methods.stop(self)
      return nil
    end
  end
  methods.start(self)
  if methods.send(self, 2 * address + 1) then
    list = {}
    for i = 1, count do list[i] = methods.receive(self, i == count) end
  end
  methods.stop(self)
  return list
end

class.define(Master, methods, "bus scl sda")

function Master.__tostring() return "i2c master" end

return M
