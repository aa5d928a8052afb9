-- SPDX-License-Identifier: MIT
-- Timers of a VM: functions that its ways of running call when their moment has come.

local raw = require "lunavisor.binding.backend"

local class = require "lunavisor.class"

local M = {}

local Timer = class.class "timer"
local mine = class.checker(Timer)
local methods = {}

--- The earlier of the VM's next timer and a deadline, 0 for none; both of raw.clock().
function M.limit(vm, deadline)
  local moment = vm.next_timer
  if not moment then return deadline end
  return deadline ~= 0 and deadline < moment and deadline or moment
end

-- Tells whoever waits for the next timer when that is.
local function settle(vm)
  local moment = false
  for timer in pairs(vm.timers) do
    if not moment or timer.moment < moment then moment = timer.moment end
  end
  vm.next_timer = moment
  for _, cpu in ipairs(vm.vcpus) do
    cpu.limit[1] = M.limit(vm, cpu.limit[2])
  end
  if vm.polled and vm[1] then assert(raw.alarm(vm, moment or 0)) end
end

local count = 0

--- A timer whose first moment comes in `delay` nanoseconds, and then every `period` if that is not
--- nil.
function M.new(vm, delay, fn, period)
  count = count + 1
  local timer = setmetatable({ vm = vm, moment = raw.clock() + delay, fn = fn, period = period,
    missed = 0, serial = count }, Timer)
  vm.timers[timer] = true
  settle(vm)
  return timer
end

--- Takes the timer back. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.vm.timers[self] then
    self.vm.timers[self] = nil
    settle(self.vm)
  end
end

class.define(Timer, methods, "missed", "vm moment fn period serial")
Timer.__close = methods.close

function Timer.__tostring(self)
  if not self.vm.timers[self] then return "timer (closed)" end
  local left = ("timer (in %.3f s"):format(math.max(self.moment - raw.clock(), 0) / 1e9)
  return self.period and left .. (", every %.3f s)"):format(self.period / 1e9) or left .. ")"
end

-- The next moment of a timer that is due: the moments that have passed meanwhile are missed.
local function advance(timer, now)
  if not timer.period then
    timer.vm.timers[timer] = nil
    return
  end
  timer.moment = timer.moment + timer.period
  if timer.moment <= now then
    local missed = math.floor((now - timer.moment) / timer.period) + 1
    timer.missed = timer.missed + missed
    timer.moment = timer.moment + missed * timer.period
  end
end

local function before(one, other)
  if one.moment ~= other.moment then return one.moment < other.moment end
  return one.serial < other.serial
end

--- Calls the functions of the timers that are due. When one raises, the others stay due.
function M.fire(vm)
  local now, due = raw.clock(), {}
  if not vm.next_timer or now < vm.next_timer then return end
  for timer in pairs(vm.timers) do
    if timer.moment <= now then due[#due + 1] = timer end
  end
  table.sort(due, before)
  for _, timer in ipairs(due) do
    if vm.timers[timer] then -- no other one has closed it
      advance(timer, now)
      settle(vm)
      timer.fn(timer)
    end
  end
end

--- Takes all timers of a VM back.
function M.close(vm)
  vm.timers = {}
  settle(vm)
end

return M
