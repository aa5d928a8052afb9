-- SPDX-License-Identifier: MIT
-- FIFOs of registers: values in their order, up to a depth.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local u64 = require "lunavisor.text.u64"

local M = {}

local Fifo = class.class "fifo"
local mine = class.checker(Fifo)
local methods = {}

--- A FIFO of a register; reading it while it is empty gives the register's reset value.
--- changed(device), if not nil, is called after every change.
function M.new(register, device, changed)
  return setmetatable({ register = register, depth = register.fifo,
    trigger = register.trigger or 1, first = 1, last = 0, lost = 0,
    device = device, changed = changed or false,
    bits = 8 * register.width, rest = bits.plain(register.reset, 8 * register.width) }, Fifo)
end

--- Appends a value. false where the FIFO is full: the value is lost, and counted in .lost.
function methods.push(self, value)
  if getmetatable(self) ~= Fifo then mine(self) end
  local exact = bits.fits(value, self.bits)
  if exact == nil then
    error(("%s: %s is no value of %d bytes"):format(self.register.name, u64.exact(value) ~= nil
      and u64.hex(value) or tostring(value), self.bits / 8), 2)
  end
  if self.last - self.first + 1 >= self.depth then
    self.lost = self.lost + 1
    return false
  end
  self.last = self.last + 1
  self[self.last] = bits.plain(exact, self.bits)
  if self.changed then self.changed(self.device) end
  return true
end

--- Takes the oldest value out; the register's reset value where there is none.
function methods.pop(self)
  if getmetatable(self) ~= Fifo then mine(self) end
  local first = self.first
  if first > self.last then return self.rest end
  local value = self[first]
  self[first] = nil
  if first == self.last then
    self.first, self.last = 1, 0
  else
    self.first = first + 1
  end
  if self.changed then self.changed(self.device) end
  return value
end

--- The oldest value, which stays; nil where there is none.
function methods.peek(self)
  mine(self)
  return rawget(self, self.first)
end

--- Empties it and tells nobody: at reset.
function M.empty(self)
  for i = self.first, self.last do self[i] = nil end
  self.first, self.last = 1, 0
end

--- Empties it.
function methods.clear(self)
  mine(self)
  M.empty(self)
  if self.changed then self.changed(self.device) end
end

--- All values, the oldest first.
function methods.list(self)
  mine(self)
  local list = {}
  for i = self.first, self.last do list[#list + 1] = self[i] end
  return list
end

class.define(Fifo, methods, "depth trigger lost", "register device first last changed bits rest")
class.computed(Fifo, {
  count = function(self) return self.last - self.first + 1 end,
  empty = function(self) return self.last < self.first end,
  full = function(self) return self.last - self.first + 1 >= self.depth end,
  triggered = function(self) return self.last - self.first + 1 >= self.trigger end,
})

function Fifo.__tostring(self)
  return ("FIFO %s (%d of %d)"):format(self.register.name, self.count, self.depth)
end

M.methods, M.class = methods, Fifo

return M
