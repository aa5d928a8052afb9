-- SPDX-License-Identifier: MIT
-- What of a device a recording is told of: functions in the place of its own, which are put back
-- when it is not recorded any more.

local events = require "lunavisor.device.event"
local expose = require "lunavisor.device.expose"
local fields = require "lunavisor.device.field"
local pages = require "lunavisor.device.page"
local plain = require "lunavisor.text.plain"
local trace = require "lunavisor.exit.trace"
local u64 = require "lunavisor.text.u64"

local unpack = rawget(table, "unpack") or unpack
local abandon, enter, leave, parent = events.abandon, events.enter, events.leave, events.parent
local effect, hex = events.effect, events.hex
local back, xpcall = trace.back, xpcall

local M = {}

-- What is done when the device is not recorded any more.
local function later(about, fn)
  about.undo[#about.undo + 1] = fn
end

-- Puts a function into a field of an object until then.
local function hook(about, object, key, fn)
  local before = rawget(object, key)
  rawset(object, key, fn)
  later(about, function()
    if rawget(object, key) == fn then rawset(object, key, before) end
  end)
end

local function access_line(self, kind, place, offset, size, value)
  local above = parent(self)
  return ("%s%d %x %d %s%s"):format(kind, place, offset, size,
    type(value) == "number" and size <= 4 and ("%x"):format(value) or hex(value),
    above > 0 and " " .. above or "")
end

-- Hooks the read and write of a region, or of a device made by hand.
local function add_accesses(self, about, object, place)
  local read, write, clock = object.read, object.write, about.clock
  if read then
    hook(about, object, "read", function(d, offset, size, ...)
      local at = enter(self, about, clock)
      local ok, value = xpcall(read, back, d, offset, size, ...)
      if not ok then abandon(self, value) end
      if u64.exact(value) ~= nil then
        self.accesses = self.accesses + 1
        self.lines[at] = access_line(self, "r", place, offset, size, value)
      else
        self.lines[at] = ("x read of place %d refused"):format(place)
      end
      leave(self)
      return value
    end)
  end
  if write then
    hook(about, object, "write", function(d, offset, size, value, ...)
      local at = enter(self, about, clock)
      self.lines[at] = access_line(self, "w", place, offset, size, value)
      local ok, given = xpcall(write, back, d, offset, size, value, ...)
      if not ok then abandon(self, given) end
      self.accesses = self.accesses + 1
      leave(self)
      return given
    end)
  end
end

local function block_line(self, kind, place, offset, size, data)
  local above = parent(self)
  return ("%s%d %x %d %s%s"):format(kind, place, offset, size, events.bytes(data),
    above > 0 and " " .. above or "")
end

-- The same for blocks of string I/O.
local function add_blocks(self, about, object, place)
  local read, write, clock = object.read_block, object.write_block, about.clock
  if read then
    hook(about, object, "read_block", function(d, offset, size, count)
      local at = enter(self, about, clock)
      local ok, data = xpcall(read, back, d, offset, size, count)
      if not ok then abandon(self, data) end
      if type(data) == "string" then
        self.accesses = self.accesses + 1
        self.lines[at] = block_line(self, "b", place, offset, size, data)
      else
        self.lines[at] = ("x block of place %d refused"):format(place)
      end
      leave(self)
      return data
    end)
  end
  if write then
    hook(about, object, "write_block", function(d, offset, size, data)
      local at = enter(self, about, clock)
      self.lines[at] = block_line(self, "B", place, offset, size, data)
      local ok, problem = xpcall(write, back, d, offset, size, data)
      if not ok then abandon(self, problem) end
      self.accesses = self.accesses + 1
      leave(self)
    end)
  end
end

local function add_inputs(self, about, dev)
  local keys = {}
  for key in pairs(dev.inputs) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local input = dev.inputs[key]
    local own = input.sinks[1]
    if input.level then self.file:write(("input %d %s 1\n"):format(about.number, tostring(key))) end
    local function told(level, ...)
      local at = enter(self, about, about.clock)
      self.lines[at] = ("i%d %s %d"):format(about.number, tostring(key), level and 1 or 0)
      local ok, problem = xpcall(own, back, level, ...)
      if not ok then abandon(self, problem) end
      leave(self)
    end
    input.sinks[1] = told
    later(about, function()
      if input.sinks[1] == told then input.sinks[1] = own end
    end)
  end
end

local function add_lines(self, about, dev, layout)
  for _, line in ipairs(layout.lines) do
    local ready, own = false, dev[line.name]
    local function told(level)
      if not ready then return end
      effect(self, ("l%d %s %d"):format(about.number, line.name, level and 1 or 0))
    end
    own:connect(told)
    ready = true
    later(about, function() own:disconnect(told) end)
  end
end

local function failure(kind, number, gpa, size, why)
  return ("%s%d %s %d ! %s"):format(kind, number, hex(gpa), size, tostring(why):gsub("%c", " "))
end

local function add_dma(self, about, dev)
  local own, number = dev.dma.memory, about.number
  if not own then return end
  local memory = {}
  function memory.read(_, gpa, size)
    local data, why, code = own:read(gpa, size)
    effect(self, data and ("d%d %s %s"):format(number, hex(gpa), events.bytes(data))
      or failure("d", number, gpa, size, why))
    return data, why, code
  end
  function memory.write(_, gpa, data)
    local ok, why, code = own:write(gpa, data)
    effect(self, ok and ("D%d %s %s"):format(number, hex(gpa), events.bytes(data))
      or failure("D", number, gpa, #data, why))
    return ok, why, code
  end
  dev.dma.memory = memory
  later(about, function()
    if dev.dma.memory == memory then dev.dma.memory = own end
  end)
end

local function pack(...)
  return { n = select("#", ...), ... }
end

-- Calls from outside: of the table's own methods, and those by which machines and scripts drive a
-- device.
local function add_methods(self, about, dev, layout)
  local names = { reset = true, update = true, load = true, start = true, after = true,
    every = true, cancel = true }
  for name in pairs(layout.spec.methods or {}) do names[name] = true end
  for name in pairs(names) do
    local own = dev[name]
    hook(about, dev, name, function(d, ...)
      if d ~= dev or events.is_inside(self, about) then return own(d, ...) end
      local at, above = enter(self, about, about.clock), parent(self)
      local given, made = plain.write(pack(...)), pack(xpcall(own, back, d, ...))
      if not made[1] then abandon(self, made[2]) end
      self.lines[at] = ("m%d %d %s %s %s"):format(about.number, above, name,
        given or "?", plain.write(made[2]) or "?")
      leave(self)
      return unpack(made, 2, made.n)
    end)
  end
end

-- ---- What a script does to a device ----

-- Calls fn, noted as "name how value", unless the device does it itself.
local function scripted(self, about, name, how, value, fn, ...)
  if events.is_inside(self, about) then return fn(...) end
  local at, above = enter(self, about, about.clock), parent(self)
  self.lines[at] = ("s%d %d %s %s %s"):format(about.number, above, name, how, hex(value))
  local made = pack(xpcall(fn, back, ...))
  if not made[1] then abandon(self, made[2]) end
  leave(self)
  return unpack(made, 2, made.n)
end

-- What a timer of the device does is its own doing: its event is the clock's.
local function run_timer(self, about, fn, d)
  self.depth = self.depth + 1
  self.inside[self.depth] = about
  local ok, problem = xpcall(fn, back, d)
  if not ok then abandon(self, problem) end
  self.depth = self.depth - 1
end

-- Stores of dev.REG, dev.REG.field and dev.REG[i]; without a register: a timer.
local function add_stores(self, about, dev)
  hook(about, dev, "stored", function(put, d, register, slot, new)
    if not register then return run_timer(self, about, put, d) end
    local index = register.count and slot - register.slot or "-"
    return scripted(self, about, register.name, index, new, put, d, register, slot, new)
  end)
end

-- A method of an object of the device, a FIFO or line, by `value` of what it gets.
local function add_call(self, about, object, name, how, value)
  local own = object[how]
  hook(about, object, how, function(...)
    return scripted(self, about, name, how, value(...), own, ...)
  end)
end

local function none() return 0 end
local function same(_, value) return value end
local function level(_, value) return (value == true or value == 1) and 1 or 0 end

local function add_scripted(self, about, dev, layout)
  add_stores(self, about, dev)
  for _, register in ipairs(layout.registers) do
    if register.fifo then
      for slot = register.slot, register.slot + (register.count or 1) - 1 do
        for how, value in pairs { push = same, pop = none, clear = none } do
          add_call(self, about, dev[slot], register.name, how, value)
        end
      end
    end
  end
  for _, line in ipairs(layout.lines) do
    if not line.ruled then
      for how, value in pairs { set = level, pulse = none } do
        add_call(self, about, dev[line.name], line.name, how, value)
      end
    end
  end
end

-- ---- All of them ----

--- Records the accesses to a region, or to a device made by hand, at a place.
function M.place(self, about, object, place)
  add_accesses(self, about, object, place)
  add_blocks(self, about, object, place)
end

--- Records what else comes to a device of the kit, and what it does.
function M.device(self, about, dev, layout)
  later(about, function() expose.settle(dev) end) -- the last of what is undone
  add_inputs(self, about, dev)
  add_lines(self, about, dev, layout)
  add_dma(self, about, dev)
  add_methods(self, about, dev, layout)
  add_scripted(self, about, dev, layout)
  later(about, fields.add(self, about, dev, layout))
  pages.add(self, about, dev, later)
  expose.settle(dev)
end

--- Ends all that.
function M.undo(about)
  for i = #about.undo, 1, -1 do about.undo[i]() end
  about.undo = {}
end

return M
