-- SPDX-License-Identifier: MIT
-- A bus with one device on it and no VM: accesses as a guest makes them, fake time, lines, DMA
-- memory, and faults. A VM can be put in front of it.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local device = require "lunavisor.device"
local dmas = require "lunavisor.device.dma"
local lines = require "lunavisor.device.line"
local memories = require "lunavisor.testing.memory"
local places = require "lunavisor.testing.place"
local recorder = require "lunavisor.device.recorder"
local u64 = require "lunavisor.text.u64"
local wires = require "lunavisor.testing.wire"

local M = {}

local Bus = class.class "bus"
local mine = class.checker(Bus)
local methods = {}

-- ---- Accesses ----

local sizes = { true, true, [4] = true, [8] = true }

-- The read and write functions of a place's region.
local function port_of(self, place)
  local dev = self.device
  if place.region and self.places then return dev.regions[place.region] end
  return dev
end

local function call_hooks(list, self, place, size, value)
  for _, hook in ipairs(list) do
    local about = hook.place
    if not about or about.region == (place.region or self.first)
      and place.offset < about.offset + (about.width or 1)
      and about.offset < place.offset + size then
      local given = hook.fn(self, value, place.offset, size)
      if value ~= nil and given ~= nil then value = given end
    end
  end
  return value
end

local function read_at(self, place, size)
  local hooks = self.hooks
  if hooks.before_read[1] then call_hooks(hooks.before_read, self, place, size) end
  local port = port_of(self, place)
  local value = port.read(port, place.offset, size)
  if hooks.after_read[1] then value = call_hooks(hooks.after_read, self, place, size, value) end
  return value
end

local function write_at(self, place, size, value)
  local hooks = self.hooks
  if hooks.before_write[1] then
    value = call_hooks(hooks.before_write, self, place, size, value)
  end
  local port = port_of(self, place)
  port.write(port, place.offset, size, value)
  if hooks.after_write[1] then call_hooks(hooks.after_write, self, place, size) end
end

M.read_at, M.write_at = read_at, write_at

local function check_size(what, size)
  if not (type(size) == "number" and size >= 1 and size <= 8 and size % 1 == 0) then
    error(("%s: a size of 1 to 8 bytes expected, got %s"):format(what, tostring(size)), 3)
  end
end

local function check_value(what, value, size)
  local exact = not (type(value) == "number" and value < 0) and u64.exact(value) or nil
  if exact == nil or size < 8 and u64.rshift(exact, 8 * size) ~= u64.exact(0) then
    error(("%s: a value of %d byte%s expected, got %s"):format(what, size, size == 1 and "" or "s",
      check.shown(value)), 3)
  end
  return size <= 4 and u64.tonumber(exact) or exact
end

-- A field's part of a register's value.
local function part(field, value)
  local moved = u64.rshift(value, field.low)
  local count = field.high - field.low + 1
  if count == 64 then return moved end
  moved = u64.band(moved, u64.lshift(1, count) - u64(1))
  return count > 32 and moved or u64.tonumber(moved)
end

--- Reads as a guest does: an offset, or the name of a register ("STATUS", "COEFF[2]") or field
--- ("STATUS.busy"). `size` in bytes; nil: the register's own. The value: a number up to 4 bytes, a
--- u64 beyond.
function methods.read(self, where, size)
  mine(self)
  local place = places.find(self.places, "bus:read", where)
  size = size or place.width
  check_size("bus:read", size)
  local value = read_at(self, place, size)
  return place.field and part(place.field, value) or value
end

local function no_field(what, place, where)
  if place.field then
    error(("%s: %s is a field; a guest writes whole registers"):format(what, where), 3)
  end
end

--- Writes as a guest does; `size` in bytes, nil: the register's own.
function methods.write(self, where, size, value)
  mine(self)
  if value == nil then
    error("bus:write: a value expected: bus:write(where, size, value), size nil for the register's "
      .. "own", 2)
  end
  local place = places.find(self.places, "bus:write", where)
  no_field("bus:write", place, where)
  size = size or place.width
  check_size("bus:write", size)
  write_at(self, place, size, check_value("bus:write", value, size))
end

--- bus:read8(where) to bus:read64(where), bus:write8(where, value) to bus:write64(where, value).
for size in pairs(sizes) do
  local read, write = "read" .. 8 * size, "write" .. 8 * size
  methods[read] = function(self, where)
    mine(self)
    local place = places.find(self.places, "bus:" .. read, where)
    local value = read_at(self, place, size)
    return place.field and part(place.field, value) or value
  end
  methods[write] = function(self, where, value)
    mine(self)
    local place = places.find(self.places, "bus:" .. write, where)
    no_field("bus:" .. write, place, where)
    write_at(self, place, size, check_value("bus:" .. write, value, size))
  end
end

--- A region of the device by name, the first where nil, as a device for a VM: { name, size, read,
--- write }, whose accesses go over the bus.
function methods.region(self, name)
  mine(self)
  local regions = self.places and self.device.regions or {}
  local region = self.places and regions[name or self.first] or name == nil and self
  name = name or self.first or nil
  if not region then
    error(("bus:region: there is no region %s%s"):format(tostring(name),
      class.hint(name, regions)), 2)
  end
  return { name = region.name, size = self.places and region.size or nil,
    read = function(_, offset, size)
      return read_at(self, { region = name, offset = offset }, size)
    end,
    write = function(_, offset, size, value)
      write_at(self, { region = name, offset = offset }, size, value)
    end }
end

-- ---- Time, lines, DMA ----

--- Lets so many seconds pass: the device's timers are called in their order.
function methods.pass(self, seconds)
  mine(self)
  if not self.clock then
    error("bus:pass: a device made by hand has no clock", 2)
  elseif type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then
    error(("bus:pass: a time in seconds expected, got %s"):format(tostring(seconds)), 2)
  end
  self.clock:advance(seconds)
end

-- The wire of a line or input.
local function wire_of(self, what, name)
  local wire = self.wires[name]
  if not wire then
    error(("%s: device %s has no line %s%s"):format(what, self.name, tostring(name),
      class.hint(name, self.wires)), 3)
  end
  return wire
end

--- The line of that name as those see it that it drives (line:connect); or, by the name of an
--- input, what drives that (line:set).
function methods.line(self, name)
  mine(self)
  local wire = wire_of(self, "bus:line", name)
  return wire.input and wire.from or wire.out
end

--- Sticks a line or input at a level, whatever drives it; nil: it works again.
function methods.stick(self, name, level)
  mine(self)
  if level ~= nil and type(level) ~= "boolean" then
    error(("bus:stick: true, false or nil expected, got %s"):format(class.describe(level)), 2)
  end
  wires.stick(wire_of(self, "bus:stick", name), level)
end

--- The edges of a line since the last call, "up" and "down", as a list.
function methods.edges(self, name)
  mine(self)
  return M.take_edges(wire_of(self, "bus:edges", name).out)
end

--- The edges of a watched line since the last call; nil where nobody watches it.
function M.take_edges(line)
  local history, list = wires.history(line), {}
  if not history then return nil end
  for i, level in ipairs(history) do
    list[i] = level and "up" or "down"
    history[i] = nil
  end
  return list
end

--- Lets DMA fail: { gpa =, size =, access = "r" or "w", count = (how often), message = }, all of
--- which may be left out; nil: the next access. Returns a function that ends it.
function methods.fail_dma(self, rule)
  mine(self)
  if not self.port then error("bus:fail_dma: the device has no DMA on this bus", 2) end
  local undo = memories.fail(self.port, rule)
  return undo
end

--- Writes to a file all that comes to the device from here on, and what it answers and does of it:
--- for t.replay, as vm:record does. Returns the recording, whose close() ends it; nil, message,
--- code where the file cannot be written.
function methods.record(self, path)
  mine(self)
  if type(path) ~= "string" then
    error(("bus:record: the path of a file expected, got %s"):format(class.describe(path)), 2)
  elseif not self.places then
    error("bus:record: a device of the kit expected; this one is made by hand", 2)
  end
  local made, message, code = recorder.new(path)
  if not made then return nil, message, code end
  recorder.add(made, self.name, self.device)
  return made
end

-- ---- Hooks ----

--- bus:before_read(where, fn), after_read, before_write, after_write: fn(bus, value, offset, size)
--- is called for every access that has a byte of the register; `where` = nil: for all. `value` is
--- what was read, or is written (nil for before_read and after_write); what fn returns stands for
--- it. Each returns a function that takes the hook away.
for _, name in ipairs { "before_read", "after_read", "before_write", "after_write" } do
  methods[name] = function(self, where, fn)
    mine(self)
    local place = where ~= nil and places.find(self.places, "bus:" .. name, where) or nil
    if type(fn) ~= "function" then
      error(("bus:%s: a function expected, got %s"):format(name, class.describe(fn)), 2)
    end
    if place then place.region = place.region or self.first end
    local hook, list = { place = place, fn = fn }, self.hooks[name]
    list[#list + 1] = hook
    return function()
      for i, other in ipairs(list) do
        if other == hook then table.remove(list, i) end
      end
    end
  end
end

class.define(Bus, methods, "device name clock memory lines dma_log said",
  "places wires port hooks first store")

local fields = getmetatable(methods).__index

-- A name of the device's is asked for there.
getmetatable(methods).__index = nil
function Bus.__index(self, key)
  local method = methods[key]
  if method ~= nil then return method end
  local known = rawget(self, "places")
  if known and known.registers[key] then
    error(("a bus has no field '%s': the guest's is bus:read(\"%s\"), the author's bus.device.%s")
      :format(key, key, key), 2)
  end
  return fields(self, key) -- a tail call: the caller is blamed
end

function Bus.__tostring(self)
  return ("bus with device %s"):format(self.name)
end

-- ---- Making one ----

local known = { memory = true, options = true }

local function check_options(options)
  options = check.beside_module(options)
  if options ~= nil and type(options) ~= "table" then
    error(("t.bus: a table of options expected, got %s"):format(class.describe(options)), 3)
  end
  for key in pairs(options or {}) do
    if not known[key] then
      error(("t.bus: unknown option '%s'%s"):format(tostring(key), class.hint(key, known)), 3)
    end
  end
  return options or {}
end

-- An instance: of a class, of a function, or the device itself.
local function make(what, options, port, said)
  local kind = device.is(what)
  if kind == "device" or not kind and type(what) == "table"
    and (what.read ~= nil or what.write ~= nil) then
    return what
  end
  local given = { dma = port, log = function(text) said[#said + 1] = text end,
    clock = device.clock() }
  for key, value in pairs(options or {}) do given[key] = value end
  if kind == "class" then return what(given) end
  if type(what) ~= "function" then
    error(("t.bus: a device, a class of devices, or a function(options) that makes one expected, "
      .. "got %s"):format(class.describe(what)), 3)
  end
  local made = what(given)
  if type(made) ~= "table" then
    error(("t.bus: the function gave %s, no device"):format(class.describe(made)), 3)
  end
  return made
end

local function add_wires(self)
  local layout = self.places.layout
  for _, about in ipairs(layout.lines) do
    self.wires[about.name] = wires.new(self.name .. "." .. about.name, self.device[about.name])
  end
  for _, input in ipairs(layout.inputs) do
    if not self.wires[input] then
      local from = lines.new(("%s.%s"):format(self.name, tostring(input)))
      local wire = wires.new(("%s.%s on the bus"):format(self.name, tostring(input)), from,
        self.device.inputs[input])
      wire.input = true
      self.wires[input] = wire
    end
  end
end

local function levels(self)
  return setmetatable({}, {
    __index = function(_, name)
      if class.is_probe(name) and type(name) ~= "number" then return nil end
      return wire_of(self, "bus.lines", name).out.level
    end,
    __newindex = function(_, name)
      error(("bus.lines.%s cannot be set: bus:stick or, for an input, bus:line(name):set")
        :format(tostring(name)), 2)
    end,
  })
end

--- A bus with a device. `what`: a class of devices, of which one is made, a function(options) that
--- makes one, a device, or one made by hand. options.memory: guest memory for DMA, a size in bytes
--- from gpa 0, 16 MiB where nil, or a list of { gpa, size }; options.options: what the device is
--- made with.
function M.new(what, options)
  options = check_options(options)
  local store = memories.store(options.memory or 2 ^ 24)
  local port, said = memories.port(store), {}
  local dev = make(what, options.options, port, said)
  local self = setmetatable({ device = dev, said = said, wires = {}, store = store,
    port = port, memory = dmas.new("the memory", store), dma_log = port.log,
    hooks = { before_read = {}, after_read = {}, before_write = {}, after_write = {} },
    places = places.new(dev) or false, clock = false, first = false,
    name = type(rawget(dev, "name")) == "string" and dev.name or "(made by hand)" }, Bus)
  if self.places then
    self.first, self.clock = self.places.layout.regions[1].name, rawget(dev, "clock")
    if not dev.dma.memory then dev.dma.memory = port end
    add_wires(self)
  end
  self.lines = levels(self)
  return self
end

M.class, M.methods = Bus, methods

return M
