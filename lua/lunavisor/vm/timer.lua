-- SPDX-License-Identifier: MIT
-- Timers of a VM: functions that its ways of running call when their moment has come.

local raw = require "lunavisor.binding.backend"

local class = require "lunavisor.class"

local M = {}

local Timer = class.class "timer"
local mine = class.checker(Timer)
local methods = {}

local SLICE = 1e8 -- nanoseconds

--- The moment at which a run is to look the next time whether a signal has come: one that comes
--- just before a wait is seen after it. A hook that a signal has set does not run in compiled code:
--- this is where it does.
function M.slice()
  return raw.clock() + SLICE
end

local jit = rawget(_G, "jit")
if jit then jit.off(M.slice) end

--- The earliest of the VM's next timer, the look at signals and a deadline, 0 for none; all of
--- raw.clock().
function M.limit(vm, deadline)
  local moment, slice = vm.next_timer, vm.slice
  if not moment or slice and slice < moment then moment = slice end
  if not moment then return deadline end
  return deadline ~= 0 and deadline < moment and deadline or moment
end

--- A run that looks at signals has come out to do so, or for another reason.
function M.look(vm)
  if vm.slice then vm.slice = M.slice() end
end

local function before(one, other)
  if one.moment ~= other.moment then return one.moment < other.moment end
  return one.serial < other.serial
end

-- vm.timers is a heap: none is due before the one at half its index. A timer knows its index, `at`,
-- or false once it is out of it. `hand` is the timer that is on its way through the heap: an error
-- can come at any instruction (a hook, no memory), and then the next use puts the heap in order.
-- Nothing here allocates, so that no finalizer can use the heap meanwhile.

local function heap_of(vm)
  local heap = vm.timers
  if not heap.hand then return heap end
  local list, seen = {}, {}
  for i = 0, #heap do
    local timer = heap[i] or heap.hand -- nothing is at 0
    if timer.at ~= false and not seen[timer] then
      seen[timer], list[#list + 1] = true, timer
    end
  end
  table.sort(list, before)
  for i, timer in ipairs(list) do timer.at = i end
  vm.timers = list
  return list
end

local function put(heap, timer, at)
  heap[at], timer.at = timer, at
end

-- Moves a timer from `at` to where it belongs.
local function sift(heap, timer, at)
  heap.hand = timer
  while at > 1 do
    local above = math.floor(at / 2)
    if not before(timer, heap[above]) then break end
    put(heap, heap[above], at)
    at = above
  end
  while true do
    local below = 2 * at
    local right = heap[below + 1]
    if right and before(right, heap[below]) then below = below + 1 end
    if not heap[below] or not before(heap[below], timer) then break end
    put(heap, heap[below], at)
    at = below
  end
  put(heap, timer, at)
  heap.hand = nil
end

local function remove(heap, timer)
  local at, last = timer.at, #heap
  local moved = heap[last]
  heap.hand = moved
  heap[last], timer.at = nil, false
  if moved ~= timer then sift(heap, moved, at) end
  heap.hand = nil
end

-- Makes vm:fd readable at the moment of the next timer; or now, where a stop waits for vm:poll.
local function alarm(vm)
  if vm.polled and vm[1] then assert(raw.alarm(vm, vm.due and 1 or vm.next_timer or 0)) end
end

M.alarm = alarm

--- Says whether a stop, from outside of handlers, waits for vm:poll.
function M.stop_due(vm, due)
  if vm.due ~= due then
    vm.due = due
    alarm(vm)
  end
end

-- Tells whoever waits for the next timer when that is.
local function settle(vm)
  local first = heap_of(vm)[1]
  local moment = first and first.moment or false
  if moment == vm.next_timer then return end
  vm.next_timer = moment
  for _, cpu in ipairs(vm.vcpus) do
    cpu.limit[1] = M.limit(vm, cpu.limit[2])
  end
  alarm(vm)
end

local function insert(vm, timer)
  local heap = heap_of(vm)
  sift(heap, timer, #heap + 1)
  settle(vm)
end

--- Whether a timer is left that somebody waits for.
function M.pending(vm)
  for _, timer in ipairs(heap_of(vm)) do if not timer.quiet then return true end end
  return false
end

local count = 0

--- A timer whose first moment comes in `delay` nanoseconds, and then every `period` if that is not
--- nil. `quiet`: a run does not go on for its sake.
function M.new(vm, delay, fn, period, quiet)
  count = count + 1
  local timer = setmetatable({ vm = vm, moment = raw.clock() + delay, fn = fn, period = period,
    missed = 0, serial = count, quiet = quiet or false, at = false }, Timer)
  if not vm[1] then error("attempt to use a closed vm", 2) end -- by a finalizer that came here
  local ok, problem = pcall(insert, vm, timer)
  if not ok then
    timer.at, vm.timers.hand = false, timer
    error(problem, 0)
  end
  return timer
end

--- Takes the timer back. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.at then
    remove(heap_of(self.vm), self)
    settle(self.vm)
  end
end

class.define(Timer, methods, "missed", "vm moment fn period serial at quiet")
Timer.__close = methods.close

function Timer.__tostring(self)
  if not self.at then return "timer (closed)" end
  local left = ("timer (in %.3f s"):format(math.max(self.moment - raw.clock(), 0) / 1e9)
  return self.period and left .. (", every %.3f s)"):format(self.period / 1e9) or left .. ")"
end

-- The next moment of a timer that is due: the moments that have passed meanwhile are missed.
local function advance(timer, now)
  local heap = heap_of(timer.vm)
  if not timer.period then
    remove(heap, timer)
    return
  end
  heap.hand = timer
  timer.moment = timer.moment + timer.period
  if timer.moment <= now then
    local missed = math.floor((now - timer.moment) / timer.period) + 1
    timer.missed = timer.missed + missed
    timer.moment = timer.moment + missed * timer.period
  end
  sift(heap, timer, timer.at)
end

-- Whether a timer is due: by `now`, or by the clock, which has gone on while others were called.
-- One that comes again and again is not asked twice, or nothing but it would get on.
local function due(timer, now)
  return timer.moment <= now or (not timer.period and timer.moment <= raw.clock())
end

--- Calls the functions of the timers that are due, but of none that is made meanwhile. When one
--- raises, the others stay due.
function M.fire(vm)
  if not vm.next_timer then return end
  local now, newest = raw.clock(), count
  local timer = heap_of(vm)[1]
  while timer and timer.serial <= newest and due(timer, now) do
    advance(timer, now)
    settle(vm)
    timer.fn(timer)
    timer = heap_of(vm)[1]
  end
end

--- Takes all timers of a VM back.
function M.close(vm)
  for _, timer in ipairs(heap_of(vm)) do timer.at = false end
  vm.timers = {}
  settle(vm)
end

return M
