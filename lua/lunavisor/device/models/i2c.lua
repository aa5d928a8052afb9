-- SPDX-License-Identifier: MIT
-- An I2C bus, by NXP's UM10204, whose headings are in quotes: two wires that anybody can pull low,
-- as lines that are up while somebody does; and devices on it as tables, from which the kit's are
-- made. It is an example of a bus of one's own.

local class = require "lunavisor.class"
local device = require "lunavisor.device"

local M = {}

-- ---- The bus ----

local Bus = class.class("i2c bus", "bus")
local mine = class.checker(Bus)
local methods = {}

--- A bus: .scl and .sda are lines, up while the wire is low.
function M.bus()
  return setmetatable({ scl = device.line "scl", sda = device.line "sda" }, Bus)
end

--- Puts a device of i2c.device on the bus. Returns it.
function methods.add(self, dev)
  mine(self)
  dev.sda_low:connect(self.sda)
  self.scl:connect(dev.inputs.scl_low)
  self.sda:connect(dev.inputs.sda_low)
  return dev
end

--- Lets the pins of a gpio drive the wires and see them: open drain, with a pull-up.
function methods.pins(self, gpio, scl, sda)
  mine(self)
  for pin, wire in pairs { [scl] = self.scl, [sda] = self.sda } do
    gpio["low" .. pin]:connect(wire)
    gpio.inputs[pin]:set(not wire.level)
    wire:connect(function(low) gpio.inputs[pin]:set(not low) end)
  end
end

class.define(Bus, methods, "scl sda")

function Bus.__tostring() return "i2c bus" end

-- ---- A device on it: a byte and its acknowledgement are nine clocks ----

-- Pulls the wire low for a 0, or for an acknowledgement.
local function drive(d, low) d.lines.sda_low = low end

-- "START and STOP conditions": changes of the data while the clock is high.
local function on_data(own)
  return function(d, low)
    if d.inputs.scl_low.level then return end
    d.i2c = { phase = low and "address" or "idle", bits = 0, byte = 0 }
    drive(d, false)
    if own.finish then own.finish(d, not low) end
  end
end

-- A whole byte has come: whether it is acknowledged ("Acknowledge (ACK) and Not Acknowledge
-- (NACK)"), and what comes then ("The target address and R/W bit").
local function received(d, own)
  local wire = d.i2c
  if wire.phase == "data" then return own.write(d, wire.byte) ~= false end
  local reading = wire.byte % 2 == 1
  if math.floor(wire.byte / 2) ~= own.address(d) or own.start
    and own.start(d, reading) == false then
    wire.phase = "idle"
    return false
  end
  wire.phase = reading and "send" or "data"
  return true
end

-- Puts the next bit of what is sent on the wire.
local function send_bit(d, own)
  local wire = d.i2c
  if wire.bits == 0 then wire.byte = own.read(d) end
  drive(d, math.floor(wire.byte / 2 ^ (7 - wire.bits)) % 2 == 0)
end

-- The clock rises: the wire's level counts.
local function sample(d)
  local wire, low = d.i2c, d.inputs.sda_low.level
  wire.bits = wire.bits + 1
  if wire.bits == 9 then
    if wire.phase == "send" and wire.sending and low == false then wire.phase = "idle" end
  elseif not wire.sending then
    wire.byte = wire.byte * 2 % 256 + (low and 0 or 1)
  end
end

-- It falls: the wire may change.
local function change(d, own)
  local wire = d.i2c
  if wire.bits == 8 then
    if wire.sending then return drive(d, false) end
    local taken = received(d, own)
    if not taken then wire.phase = "idle" end
    return drive(d, taken)
  elseif wire.bits == 9 then
    wire.bits, wire.byte, wire.sending = 0, 0, wire.phase == "send"
    drive(d, false)
  end
  if wire.sending then send_bit(d, own) end
end

local function on_clock(own)
  return function(d, low)
    if d.i2c.phase == "idle" then return drive(d, false) end
    if low then change(d, own) else sample(d) end
  end
end

--- A device's table for the kit, made of `spec`, with what the bus needs: inputs scl_low, sda_low,
--- a line sda_low, and the state i2c. `own` says what it does there: address(d); read(d) -> byte;
--- write(d, byte), false where it is not acknowledged; if it likes start(d, reading), false where
--- it does not answer, and finish(d, stop) at each STOP; and at a START, stop is false then.
function M.device(own, spec)
  for key, value in pairs { inputs = { scl_low = on_clock(own), sda_low = on_data(own) },
    lines = { sda_low = true }, state = { i2c = { phase = "idle", bits = 0, byte = 0 } } } do
    spec[key] = spec[key] or {}
    for name, part in pairs(value) do spec[key][name] = part end
  end
  return spec
end

return M
