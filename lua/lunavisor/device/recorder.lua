-- SPDX-License-Identifier: MIT
-- Recordings: a file of lines with all that comes to devices (accesses, inputs, time, data of DMA,
-- calls of their methods) and what they do of it (answers, lines, DMA). lua/manual/testing.md
-- describes the file. During an event a device's clock stands, so that what it saw is what is
-- written.

local class = require "lunavisor.class"
local dump = require "lunavisor.device.dump"
local events = require "lunavisor.device.event"
local pages = require "lunavisor.device.page"
local plain = require "lunavisor.text.plain"
local taps = require "lunavisor.device.tap"
local trace = require "lunavisor.exit.trace"

local back, xpcall = trace.back, xpcall

local M = { TITLE = "lunavisor recording ", VERSION = 1, hex = events.hex, bytes = events.bytes }

local Recording = class.class "recording"
local mine = class.checker(Recording)
local methods = {}

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
  local at = events.enter(recording, nil, clock)
  recording.lines[at] = "f" .. self.number
  local ok, problem = xpcall(fire, back, clock)
  if not ok then events.abandon(recording, problem) end
  events.leave(recording)
end

local function add_clock(self, clock)
  for number, other in ipairs(self.clocks) do if other == clock then return number end end
  local own, number = clock.source, #self.clocks + 1
  self.clocks[number] = clock
  clock.source = setmetatable({ own = own, number = number, recording = self,
    pass = own.pass and function(_, moment) own:pass(moment) end }, Source)
  return number
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
  events.leave(self)
  for _, region in ipairs(layout.regions) do
    local place = place_of(self, about, region.name, where and where[region.name])
    taps.place(self, about, dev.regions[region.name], place)
    if (layout.regions.main or layout.regions[1]) == region then
      taps.place(self, about, dev, place)
    end
  end
  taps.device(self, about, dev, layout)
end

--- Records the accesses to a device made by hand, at a trap.
function M.add_hand(self, name, object, trap, clock)
  local about = new_device(self, object, clock)
  self.file:write(("device %d - 1 %d %.0f %s\n"):format(about.number, add_clock(self, clock),
    clock.source:time(), name))
  taps.place(self, about, object, place_of(self, about, "-", trap))
end

-- Ends what is recorded of a device, with what its memory has come to.
local function finish(self, about)
  if about.finished then return end
  about.finished = true
  taps.undo(about)
  pages.tell(about, function(line) events.effect(self, line) end)
end

--- Records a device no longer.
function M.drop(self, dev)
  for _, about in ipairs(self.devices) do if about.object == dev then finish(self, about) end end
end

--- Notes an exit that no device took: for people, replays pass over it.
function M.exit(self, exit)
  events.effect(self, "x " .. tostring(exit):gsub("%c", " "))
end

-- ---- Files ----

--- Ends the recording: the file is whole, and devices are as before. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.closed then return end
  self.closed = true
  for _, about in ipairs(self.devices) do finish(self, about) end
  for _, clock in ipairs(self.clocks) do clock.source = clock.source.own end
  events.flush(self)
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
