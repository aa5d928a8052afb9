-- SPDX-License-Identifier: MIT
-- Time for devices: one clock, whose moments come from a source: a script that advances it, a VM's
-- timers, or what else can tell the time and call back.

local class = require "lunavisor.class"

local M = {}

local Clock = class.class "clock"
local mine = class.checker(Clock)
local methods = {}

local LONGEST = 2 ^ 52 -- nanoseconds, 52 days

--- Nanoseconds of a time in seconds; `level` as for error().
function M.nanoseconds(what, seconds, level)
  if type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds then
    error(("%s: a time in seconds expected, got %s"):format(what, tostring(seconds)), level + 1)
  end
  return math.floor(math.min(seconds * 1e9 + 0.5, LONGEST))
end

local nanoseconds = M.nanoseconds

-- ---- Alarms ----

-- clock.alarms is a list by moment, then by age; devices have few. An alarm: { moment, serial, fn,
-- period }.
local function place(self, alarm)
  local alarms = self.alarms
  local at = #alarms + 1
  while at > 1 and alarms[at - 1].moment > alarm.moment do
    alarms[at] = alarms[at - 1]
    at = at - 1
  end
  alarms[at] = alarm
  return at
end

local function insert(self, alarm)
  if place(self, alarm) == 1 then self.source:arm(alarm.moment) end
end

local function remove(self, alarm)
  for i, other in ipairs(self.alarms) do
    if other == alarm then
      table.remove(self.alarms, i)
      if i == 1 then self.source:arm(self.alarms[1] and self.alarms[1].moment) end
      return true
    end
  end
  return false
end

local function add(self, what, seconds, fn, periodic)
  if type(fn) ~= "function" then
    error(("%s: a function expected, got %s"):format(what, class.describe(fn)), 3)
  end
  local delay = nanoseconds(what, seconds, 3)
  if periodic and delay == 0 then error(what .. ": a period of at least 1 ns expected", 3) end
  local alarm = { moment = self.source:time() + delay, fn = fn,
    period = periodic and delay or false }
  insert(self, alarm)
  return alarm
end

--- Calls fn(alarm) in so many seconds. Returns an alarm for clock:cancel.
function methods.after(self, seconds, fn)
  mine(self)
  local alarm = add(self, "clock:after", seconds, fn, false)
  return alarm -- not a tail call: the checks count on this frame
end

--- Calls fn(alarm) every so many seconds.
function methods.every(self, seconds, fn)
  mine(self)
  local alarm = add(self, "clock:every", seconds, fn, true)
  return alarm
end

--- Takes an alarm back. Whether it was still to come.
function methods.cancel(self, alarm)
  mine(self)
  return remove(self, alarm)
end

--- Seconds until an alarm; nil where it is not to come.
function methods.left(self, alarm)
  mine(self)
  for _, other in ipairs(self.alarms) do
    if other == alarm then return math.max(0, alarm.moment - self.source:time()) / 1e9 end
  end
  return nil
end

--- Moves an alarm that is to come.
function methods.move(self, alarm, seconds)
  mine(self)
  local delay = nanoseconds("clock:move", seconds, 2)
  remove(self, alarm)
  alarm.moment = self.source:time() + delay
  insert(self, alarm)
end

local function fire(self)
  local now = self.source:time()
  local alarm = self.alarms[1]
  while alarm and alarm.moment <= now do
    table.remove(self.alarms, 1)
    if alarm.period then
      alarm.moment = alarm.moment + alarm.period
      place(self, alarm)
    end
    self.source:arm(self.alarms[1] and self.alarms[1].moment)
    alarm.fn(alarm)
    alarm = self.alarms[1]
  end
end

--- Calls what is due: for sources.
function methods.fire(self)
  mine(self)
  local source = self.source
  if source.around then return source:around(fire, self) end -- a recording
  fire(self)
end

--- Lets time pass, if it is a script's: alarms are called in their order, each at its own moment.
function methods.advance(self, seconds)
  mine(self)
  local source = self.source
  if not source.pass then
    error("clock:advance: this clock goes by itself; a fake one, device.clock(), can be advanced",
      2)
  end
  local stop = source:time() + nanoseconds("clock:advance", seconds, 2)
  while self.alarms[1] and self.alarms[1].moment <= stop do
    source:pass(math.max(source:time(), self.alarms[1].moment))
    methods.fire(self)
  end
  source:pass(stop)
end

class.define(Clock, methods, "source", "alarms")
class.computed(Clock, { now = function(self) return self.source:time() / 1e9 end })

function Clock.__tostring(self)
  return ("clock (%.9f s, %d alarm%s)"):format(self.now, #self.alarms,
    #self.alarms == 1 and "" or "s")
end

-- ---- Sources ----

local Fake = {}
Fake.__index = Fake
function Fake.time(self) return self.moment end
function Fake.arm() end
function Fake.pass(self, moment) self.moment = moment end

--- A clock over a source: an object with time(self), nanoseconds, and arm(self, moment or nil),
--- which lets clock:fire be called then.
function M.new(source)
  return setmetatable({ source = source, alarms = {} }, Clock)
end

--- A clock that stands until it is advanced, at 0 s.
function M.fake()
  return M.new(setmetatable({ moment = 0 }, Fake))
end

M.methods, M.class = methods, Clock

return M
