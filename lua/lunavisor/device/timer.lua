-- SPDX-License-Identifier: MIT
-- Timers of a device, by name: dev:after, dev:every, dev:cancel; and registers that follow others.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local clocks = require "lunavisor.device.clock"
local handles = require "lunavisor.device.handle"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Alarms: dev:after, dev:every, and followers ----

--- Calls fn in so many seconds by the device's clock, under a name that is armed once at a time.
function M.arm(d, name, seconds, periodic, fn)
  local alarms, clock = rawget(d, "alarms"), rawget(d, "clock")
  local layout = rawget(d, "class").layout
  if alarms[name] then clock:cancel(alarms[name].alarm) end
  local entry = { period = periodic and seconds or nil, fn = fn }
  alarms[name] = entry
  entry.alarm = clock[periodic and "every" or "after"](clock, seconds, function()
    if not periodic then alarms[name] = nil end
    if d.stored then d.stored(fn, d) else fn(d) end
    if layout.update then layout.update(d) end
  end)
end

--- The same for a timer of a saved state, whose next moment comes in `left` seconds.
function M.resume(d, name, left, period, fn)
  M.arm(d, name, period or left, period ~= nil, fn)
  if period then rawget(d, "clock"):move(rawget(d, "alarms")[name].alarm, left) end
end

-- ---- Followers ----

local function value_of(lead, value)
  if not lead.field then return value end
  local part = u64.rshift(u64.band(value, lead.field.mask), lead.field.low)
  return bits.plain(part, lead.field.count)
end

--- Brings what follows up to date.
local function take(d, lead)
  local value, register = value_of(lead, d[lead.leader.slot]), lead.target
  local field, old = lead.follower, d[register.slot]
  local limit = field and field.count or 8 * register.width
  local exact = u64.band(u64.exact(value), bits.mask(0, limit))
  value = bits.plain(exact, limit)
  handles.store(d, register, register.slot, field and field.put(old, value) or value)
end

M.take = take

--- Lets a register or field follow the one that has changed, at once or after its time.
function M.follow(d, lead, new, old)
  if value_of(lead, new) == value_of(lead, old) then return end
  if not lead.after or lead.after == 0 then return take(d, lead) end
  M.arm(d, lead.name, lead.after, false, function() take(d, lead) end)
end

-- ---- Methods ----

M.methods = {}

local function check_timer(d, what, name, level)
  local timers = rawget(d, "class").layout.spec.timers or {}
  if type(name) ~= "string" then
    error(("%s: the name of one of the table's timers expected, got %s"):format(what,
      class.describe(name)), level + 1)
  elseif not timers[name] then
    error(("%s: device %s has no timer %s%s"):format(what, d.name, tostring(name),
      class.hint(name, timers)), level + 1)
  end
  return timers[name]
end

--- Calls the timer of that name in so many seconds, instead of when it would have been called.
function M.methods.after(d, seconds, name)
  local fn = check_timer(d, "dev:after", name, 2)
  clocks.nanoseconds("dev:after", seconds, 2)
  M.arm(d, name, seconds, false, fn)
end

--- Calls it every so many seconds.
function M.methods.every(d, seconds, name)
  local fn = check_timer(d, "dev:every", name, 2)
  if clocks.nanoseconds("dev:every", seconds, 2) == 0 then
    error("dev:every: a period of at least 1 ns expected", 2)
  end
  M.arm(d, name, seconds, true, fn)
end

--- The timer of that name is not called any more. Whether it would have been.
function M.methods.cancel(d, name)
  local alarms = rawget(d, "alarms")
  local entry = alarms[name]
  if not entry then
    if not rawget(d, "class").layout.followers[name] then check_timer(d, "dev:cancel", name, 2) end
    return false
  end
  alarms[name] = nil
  return rawget(d, "clock"):cancel(entry.alarm)
end

--- Seconds until the timer of that name; nil where it is not armed.
function M.methods.left(d, name)
  local entry = rawget(d, "alarms")[name]
  if not entry then
    if not rawget(d, "class").layout.followers[name] then check_timer(d, "dev:left", name, 2) end
    return nil
  end
  return rawget(d, "clock"):left(entry.alarm)
end

--- Lets the device go by another clock: what its timers have left stays.
function M.methods.use_clock(d, clock)
  local alarms, before = rawget(d, "alarms"), rawget(d, "clock")
  if getmetatable(clock) ~= clocks.class then
    error(("dev:use_clock: a clock expected, got %s"):format(class.describe(clock)), 2)
  end
  rawset(d, "alarms", {})
  rawset(d, "clock", clock)
  for name, entry in pairs(alarms) do
    M.resume(d, name, before:left(entry.alarm) or 0, entry.period, entry.fn)
    before:cancel(entry.alarm)
  end
end

return M
