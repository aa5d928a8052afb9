-- SPDX-License-Identifier: MIT
-- Recordings: a file of lines with all that comes to devices (accesses, inputs, time, data of DMA,
-- calls of their methods) and what they do of it (answers, lines, DMA). lua/manual/testing.md
-- describes the file. During an event a device's clock stands, so that what it saw is what is
-- written.

local class = require "lunavisor.class"
local dump = require "lunavisor.device.dump"
local plain = require "lunavisor.text.plain"
local trace = require "lunavisor.exit.trace"
local u64 = require "lunavisor.text.u64"

local unpack = rawget(table, "unpack") or unpack
local back, xpcall = trace.back, xpcall

local M = { TITLE = "lunavisor recording ", VERSION = 1 }

local Recording = class.class "recording"
local mine = class.checker(Recording)
local methods = {}

-- ---- Events ----

local function hex(value)
  return u64.hex(value):sub(3)
end

M.hex = hex

--- Bytes as hexadecimal digits.
function M.bytes(data)
  return (data:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function add(self, text)
  local lines = self.lines
  lines[#lines + 1] = text
end

local function flush(self)
  local lines = self.lines
  for i = 1, #lines do
    self.file:write(lines[i], "\n")
    lines[i] = nil
  end
end

-- Notes a moment of a clock, where it is not the one that was written last.
local function stamp(self, clock)
  local moment = clock.source:time()
  if moment ~= self.moment then
    self.moment = moment
    add(self, ("@%.0f"):format(moment))
  end
end

-- Begins an event of a device (of the clock alone, where nil), whose line is to be put at the
-- number that is returned: what comes of it stands behind it.
local function enter(self, about, clock)
  self.depth = self.depth + 1
  self.inside[self.depth] = about or false
  if clock then stamp(self, clock) end
  local at = #self.lines + 1
  self.lines[at] = ""
  return at
end

local function leave(self)
  self.depth = self.depth - 1
  if self.depth > 0 then return end
  for _, clock in ipairs(self.clocks) do clock.source.moment = nil end
  flush(self)
end

-- What has raised is no event: the access stays open.
local function abandon(self, problem)
  self.depth = self.depth - 1
  if self.depth == 0 then
    self.lines, self.moment = {}, nil
    for _, clock in ipairs(self.clocks) do clock.source.moment = nil end
  end
  error(problem, 0)
end

-- The number of the device in whose event this one is, 0 for none.
local function parent(self)
  local about = self.depth > 1 and self.inside[self.depth - 1]
  return about and about.number or 0
end

local function is_inside(self, about)
  for i = 1, self.depth do if self.inside[i] == about then return true end end
  return false
end

-- What comes of an event, or of what the script has done.
local function effect(self, text)
  add(self, text)
  if self.depth == 0 then flush(self) end
end

-- ---- Time ----

local Source = {} -- in front of a clock's own
Source.__index = Source

function Source.time(self)
  if self.recording.depth == 0 then return self.own:time() end
  self.moment = self.moment or self.own:time()
  return self.moment
end

function Source.arm(self, moment) self.own:arm(moment) end

--- What a clock calls to call what is due.
function Source.around(self, fire, clock)
  local recording = self.recording
  local at = enter(recording, nil, clock)
  recording.lines[at] = "f" .. self.number
  local ok, problem = xpcall(fire, back, clock)
  if not ok then abandon(recording, problem) end
  leave(recording)
end

local function add_clock(self, clock)
  for number, other in ipairs(self.clocks) do if other == clock then return number end end
  local own, number = clock.source, #self.clocks + 1
  self.clocks[number] = clock
  clock.source = setmetatable({ own = own, number = number, recording = self,
    pass = own.pass and function(_, moment) own:pass(moment) end }, Source)
  return number
end

-- ---- Hooks ----

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
    local ready, own = false, rawget(dev, line.name)
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
    effect(self, data and ("d%d %s %s"):format(number, hex(gpa), M.bytes(data))
      or failure("d", number, gpa, size, why))
    return data, why, code
  end
  function memory.write(_, gpa, data)
    local ok, why, code = own:write(gpa, data)
    effect(self, ok and ("D%d %s %s"):format(number, hex(gpa), M.bytes(data))
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

-- Calls from outside: of the table's own methods, and those by which a machine drives a device.
local function add_methods(self, about, dev, layout)
  local names = { reset = true, update = true }
  for name in pairs(layout.spec.methods or {}) do names[name] = true end
  for name in pairs(names) do
    local own = dev[name]
    hook(about, dev, name, function(d, ...)
      if d ~= dev or is_inside(self, about) then return own(d, ...) end
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

-- ---- Devices ----

local function scalars(options)
  local made = {}
  for key, value in pairs(options) do
    if type(key) == "string" and type(value) ~= "table" and plain.write(value) then
      made[key] = value
    end
  end
  return made
end

--- Options that are plain values by themselves: what a device was made with, as far as a file says
--- it.
M.scalars = scalars

local function place_of(self, about, region, where)
  self.places = self.places + 1
  self.file:write(("place %d %d %s %s\n"):format(self.places, about.number, region,
    where and ("%s %x %d"):format(where.kind, where.first, where.length) or "-"))
  return self.places
end

--- The lines of a device and its present state, given to write(line).
function M.head(about, layout, clock, name, dev, write)
  write(("device %d %s %d %d %.0f %s"):format(about.number, layout.name, layout.spec.version or 1,
    clock, about.clock.source:time(), name))
  write(("options %d %s"):format(about.number, plain.write(scalars(dev.options))))
  write(("state %d %s"):format(about.number, plain.write(dev:save()) or "?"))
end

local function new_device(self, object, clock)
  local about = { number = #self.devices + 1, clock = clock, object = object, undo = {} }
  self.devices[about.number] = about
  return about
end

--- Records a device of the kit from here on, under a name. `where`: by region, the trap that it
--- has there.
function M.add(self, name, dev, where)
  local layout = dump.layout_of(dev)
  local about = new_device(self, dev, rawget(dev, "clock"))
  local clock = add_clock(self, about.clock)
  -- Time stands, so that what timers have left goes by one moment; and none is late.
  self.depth = self.depth + 1
  self.inside[self.depth] = about
  about.clock:fire()
  M.head(about, layout, clock, name, dev, function(line) self.file:write(line, "\n") end)
  leave(self)
  for _, region in ipairs(layout.regions) do
    local place = place_of(self, about, region.name, where and where[region.name])
    add_accesses(self, about, dev.regions[region.name], place)
    if (layout.regions.main or layout.regions[1]) == region then
      add_accesses(self, about, dev, place)
    end
  end
  add_inputs(self, about, dev)
  add_lines(self, about, dev, layout)
  add_dma(self, about, dev)
  add_methods(self, about, dev, layout)
end

--- Records the accesses to a device made by hand, at a trap.
function M.add_hand(self, name, object, trap, clock)
  local about = new_device(self, object, clock)
  self.file:write(("device %d - 1 %d %.0f %s\n"):format(about.number, add_clock(self, clock),
    clock.source:time(), name))
  add_accesses(self, about, object, place_of(self, about, "-", trap))
end

local function undo(about)
  for i = #about.undo, 1, -1 do about.undo[i]() end
  about.undo = {}
end

--- Records a device no longer.
function M.drop(self, dev)
  for _, about in ipairs(self.devices) do if about.object == dev then undo(about) end end
end

--- Notes an exit that no device took: for people, replays pass over it.
function M.exit(self, exit)
  effect(self, "x " .. tostring(exit):gsub("%c", " "))
end

-- ---- Files ----

--- Ends the recording: the file is whole, and devices are as before. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.closed then return end
  self.closed = true
  for i = #self.devices, 1, -1 do undo(self.devices[i]) end
  for _, clock in ipairs(self.clocks) do clock.source = clock.source.own end
  flush(self)
  self.file:write(("end %d\n"):format(self.accesses))
  self.file:close()
  if self.ended then self.ended() end
end

--- A recording to a file, which is made or emptied. nil, message, code where it cannot be.
function M.new(path)
  local file, why = io.open(path, "wb")
  if not file then return nil, "cannot record: " .. why, "system" end
  file:write(M.TITLE, M.VERSION, "\n")
  return setmetatable({ path = path, file = file, accesses = 0, lines = {}, depth = 0, inside = {},
    clocks = {}, devices = {}, places = 0, closed = false, ended = false }, Recording)
end

class.define(Recording, methods, "path accesses closed",
  "file lines depth inside clocks devices places moment ended")
Recording.__close = methods.close

function Recording.__tostring(self)
  return ("recording %s (%d access%s%s)"):format(self.path, self.accesses,
    self.accesses == 1 and "" or "es", self.closed and ", closed" or "")
end

M.class, M.methods = Recording, methods

return M
