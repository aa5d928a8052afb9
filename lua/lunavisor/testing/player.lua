-- SPDX-License-Identifier: MIT
-- One device of a recording on its bus: put into its first state, given what came to it, and
-- watched for what it does of it.

local buses = require "lunavisor.testing.bus"
local device = require "lunavisor.device"
local pages = require "lunavisor.device.page"
local plain = require "lunavisor.text.plain"
local recorder = require "lunavisor.device.recorder"
local u64 = require "lunavisor.text.u64"

local unpack = rawget(table, "unpack") or unpack

local M = {}

local Player = {}
Player.__index = Player

-- ---- Whether it is the device ----

local function regions_differ(about, layout)
  for _, region in ipairs(layout.regions) do
    if not about.regions[region.name] then
      return ("it has a region %s, and had none"):format(region.name)
    end
  end
  for name in pairs(about.regions) do
    local found = false
    for _, region in ipairs(layout.regions) do found = found or region.name == name end
    if not found then return ("it had a region %s, and has none"):format(name) end
  end
  return nil
end

-- Why the bus has another device than the recording; nil where it has the same. `renew`: only what
-- no new file could have.
local function differs(about, bus, renew)
  local layout = bus.places and bus.places.layout
  local kind, version = layout and layout.name or "-", layout and layout.version or 1
  if kind ~= about.kind or version ~= about.version and not renew then
    return ("it was a %s, version %d, and is a %s, version %d"):format(about.kind, about.version,
      kind, version)
  end
  if not layout then return nil end
  local why = regions_differ(about, layout)
  if why or renew then return why end
  for name, value in pairs(about.options) do
    local now = bus.device.options[name]
    local text = plain.write(now) or type(now)
    if text ~= plain.write(value) then
      return ("its option %s was %s, and is %s"):format(name, plain.write(value), text)
    end
  end
  return nil
end

--- A player of a recorded device on a bus; nil and why it cannot be that one. `renew`: the file is
--- to be written anew, so that nothing has to be as it was.
function M.new(about, bus, renew)
  local why = differs(about, bus, renew)
  if why then return nil, why end
  local made = setmetatable({ about = about, bus = bus, dev = bus.device, seen = {}, first = 1,
    last = 0, undo = {}, fed = 0, failed = 0, renew = renew or false, where = {}, moment = false },
    Player)
  for name, place in pairs(about.regions) do
    made.where[place] = { region = bus.places and name or nil, offset = 0 }
  end
  return made
end

-- ---- What it does ----

-- Notes what the device does, as a line of the file.
local function note(self, kind, text)
  self.last = self.last + 1
  self.seen[self.last] = ("%s%d %s"):format(kind, self.about.number, text)
end

--- The next that the device has done, which is taken; nil where there is nothing.
function Player.take(self)
  local text = self.seen[self.first]
  if text == nil then return nil end
  self.seen[self.first] = nil
  self.first = self.first + 1
  return text
end

--- What a device has done, for people, from a line of the file.
function M.effect(text)
  local kind, rest = text:match "^(%a)%d+ (.*)$"
  if kind == "l" then
    local name, up = rest:match "^(.+) ([01])$"
    return ("line %s goes %s"):format(name, up == "1" and "up" or "down")
  end
  local gpa, data = rest:match "^(%x+) (.*)$"
  return ("DMA %s gpa 0x%s: %s"):format(kind == "d" and "from" or "to", gpa, data)
end

-- The next of the recorded accesses, if it is this one.
local function matches(event, gpa, size)
  return event and event.size == size and u64.exact(event.gpa) == u64.exact(gpa) and event or nil
end

local function transfer_text(gpa, size, data, why)
  return data and ("%s %s"):format(recorder.hex(gpa), recorder.bytes(data))
    or ("%s %d ! %s"):format(recorder.hex(gpa), size, tostring(why):gsub("%c", " "))
end

-- What a device's DMA meets: what it met when it was recorded.
local function memory_of(self, own)
  local memory = {}
  function memory.read(_, gpa, size)
    local event = matches(self.about.reads[self.fed + 1], gpa, size)
    local data, why
    if event then
      self.fed = self.fed + 1
      data, why = event.data, event.why
    else
      data, why = own:read(gpa, size)
    end
    note(self, "d", transfer_text(gpa, size, data, why))
    return data, why
  end
  function memory.write(_, gpa, data)
    local event = matches(self.about.failures[self.failed + 1], gpa, #data)
    if event then self.failed = self.failed + 1 end
    note(self, "D", transfer_text(gpa, #data, not event and data or nil, event and event.why))
    if event then return nil, event.why end
    return true
  end
  return memory
end

-- ---- Beginning and ending ----

local function watch(self)
  local dev = self.dev
  for _, about in ipairs(self.bus.places.layout.lines) do
    local ready, line = false, dev[about.name]
    local function told(up)
      if ready then note(self, "l", about.name .. (up and " 1" or " 0")) end
    end
    line:connect(told)
    ready = true
    self.undo[#self.undo + 1] = function() line:disconnect(told) end
  end
  local own = dev.dma.memory
  dev.dma.memory = memory_of(self, own)
  self.undo[#self.undo + 1] = function() dev.dma.memory = own end
end

--- Puts the device into the state in which the recording found it. nil and a message where that
--- cannot be.
function Player.begin(self)
  local about, dev = self.about, self.dev
  self.seen, self.first, self.last, self.fed, self.failed = {}, 1, 0, 0, 0
  self.moment = false
  if not self.bus.places then return true end
  local source = self.bus.clock.source
  if not source.pass then return nil, "its clock goes by itself: make it without one" end
  source:pass(about.started)
  for key, input in pairs(dev.inputs) do input:set(about.levels[tostring(key)] or false) end
  local state = about.state
  if type(state) ~= "table" then return nil, "the file has no state of it that can be loaded" end
  if self.renew then state.version = self.bus.places.layout.version end
  local ok, why = dev:load(state, { partial = self.renew })
  if not ok then return nil, why end
  watch(self)
  return true
end

function Player.finish(self)
  for i = #self.undo, 1, -1 do self.undo[i]() end
  self.undo = {}
end

-- ---- What comes to it ----

local acts = {}

local function access(self, event)
  local where = self.where[event.place]
  where.offset = event.offset
  if event.op == "r" then return buses.read_at(self.bus, where, event.size) end
  buses.write_at(self.bus, where, event.size, event.value)
  return event.value
end

acts.r, acts.w = access, access

-- What has the block functions of a place.
local function streams(self, event)
  local region = self.bus.places and self.dev.regions[self.where[event.place].region] or self.dev
  if not region[event.op == "b" and "read_block" or "write_block"] then
    error("the device takes no blocks there", 0)
  end
  return region
end

function acts.b(self, event)
  local region = streams(self, event)
  return region.read_block(region, event.offset, event.size, event.count)
end

function acts.B(self, event)
  local region = streams(self, event)
  region.write_block(region, event.offset, event.size, event.data)
end

function acts.i(self, event)
  local inputs = self.dev.inputs
  local input = rawget(inputs, event.name) or rawget(inputs, tonumber(event.name))
  if input then input:set(event.level) end
end

function acts.m(self, event)
  if event.given == nil then
    error(("the call of %s had arguments that a recording cannot hold"):format(event.name), 0)
  end
  local result = self.dev[event.name](self.dev, unpack(event.given, 1, event.given.n))
  return plain.write(result) or "?"
end

-- How a script did something, to what the device has of a name.
local HOW = {
  ["-"] = function(dev, event) dev[event.name] = event.value end,
  push = function(dev, event) dev[event.name]:push(event.value) end,
  pop = function(dev, event) dev[event.name]:pop() end,
  clear = function(dev, event) dev[event.name]:clear() end,
  trigger = function(dev, event) dev[event.name].trigger = event.value end,
  set = function(dev, event) dev[event.name]:set(event.value == 1) end,
  pulse = function(dev, event) dev[event.name]:pulse() end,
}

function acts.s(self, event)
  local fn = HOW[event.how]
  if fn then return fn(self.dev, event) end
  self.dev[event.name][event.how] = event.value
end

function acts.v(self, event)
  if not event.held then
    error(("field %s was set to what a recording cannot hold"):format(event.name), 0)
  end
  self.dev[event.name] = event.value
end

local function buffer_of(self, event)
  local buffer = self.bus.places and self.dev.buffers[event.name]
  if not buffer then error(("the device has no buffer %s"):format(event.name), 0) end
  return buffer
end

function acts.p(self, event)
  buffer_of(self, event):write(event.offset, event.data)
end

function acts.P(self, event)
  buffer_of(self, event):fill(event.data:byte(), event.offset, event.size)
end

--- What a buffer has come to, as the recording has it.
function acts.h(self, event)
  buffer_of(self, event)
  return pages.come_to(self.dev, event.name)
end

function acts.f(self)
  self.bus.clock:fire()
end

--- Lets an event come to the device, so late; its answer: what is read, what a method gives as
--- text.
function Player.act(self, event, moment)
  if moment ~= self.moment and self.bus.clock then
    self.moment = moment
    self.bus.clock.source:pass(moment)
  end
  return acts[event.op](self, event)
end

-- ---- Names ----

--- Where an access is, for people: "LSR", or "2 bytes at offset 0x5" where that is no register.
function Player.name(self, event)
  local layout = self.bus.places and device.layout(self.dev)
  local direction = event.op:lower() == event.op and event.op ~= "w" and "read" or "write"
  for _, register in ipairs(layout and layout.registers or {}) do
    local index = register.at
      and (event.offset - register.at) / (register.stride or register.width)
    if index and register.region == event.place.region and index % 1 == 0 and index >= 0
      and index < (register.count or 1) and register.width == event.size
      and (not register.face or register.face == direction)
      and (not register.when or register.when(self.dev)) then
      return register.count and ("%s[%d]"):format(register.name, index) or register.name
    end
  end
  return ("%d byte%s at offset 0x%x%s"):format(event.size, event.size == 1 and "" or "s",
    event.offset, layout and #layout.regions > 1 and " of region " .. event.place.region or "")
end

return M
