-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: all its vCPUs at once, each on a thread of its own, while one Lua
-- thread answers their exits; a single one in the thread itself; timers; and what an event loop
-- needs.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local alone = require "lunavisor.vm.alone"
local dispatch = require "lunavisor.exit.dispatch"
local ending = require "lunavisor.vm.ending"
local exits = require "lunavisor.exit.record"
local stand = require "lunavisor.exit.stand"
local trace = require "lunavisor.exit.trace"
local limits = require "lunavisor.vm.limit"
local runner = require "lunavisor.vm.runner"
local timers = require "lunavisor.vm.timer"

local raw_next, raw_go, raw_answer, clock = raw.next, raw.go, raw.answer, raw.clock
local serve, handle = dispatch.serve, dispatch.handle
local new_exit, stop_asked = ending.exit, ending.asked
local ELSEWHERE = alone.ELSEWHERE
local pairs, ipairs = pairs, ipairs

local HLT = exits.numbers.hlt
local FOREVER = 2 ^ 62
local LONGEST = 1e9   -- seconds, 30 years
local POLL_MOST = 64 -- exits of one vm:poll: the loop that calls it has other things to do

local function start_all(self, start)
  for _, cpu in ipairs(self.vcpus) do
    if not cpu.parked and not cpu.started then
      local ok, message, code = runner.start(cpu, start)
      if not ok then return nil, message, code end
    end
  end
  return true
end

-- true, or the first failure.
local function each_started(self, call)
  local result = { true }
  for _, cpu in ipairs(self.vcpus) do
    if self.started[cpu.id] == cpu then
      local ok, message, code = call(cpu)
      if not ok and result[1] then result = { nil, message, code } end
    end
  end
  return result[1], result[2], result[3]
end

local function stop_all(self)
  return each_started(self, runner.join)
end

local function all_parked(self)
  for _, cpu in pairs(self.started) do
    if not cpu.parked then return false end
  end
  return not timers.pending(self)
end

-- ---- Dispatch ----

-- Lets a vCPU go on whose handler or device has done its work, unless that has closed or joined it.
local function go(self, cpu, id, answer)
  if not cpu[1] then return end
  if self.started[id] == cpu then
    raw_go(cpu, answer)
  elseif answer ~= nil then
    raw_answer(cpu, answer)
  end
end

-- Hands an exit to its device or handler; the exit and its vCPU if nobody takes it.
local function hand_over(self, kind, trap, offset, size, value, access, id)
  local cpu, device, answer = self.started[id], self.served[trap], nil
  self.serving = cpu
  if self.hits[trap] then self.hits[trap] = self.hits[trap] + 1 end
  if device then
    answer = serve(device, offset, size, value, access)
  elseif self.special[trap] then
    answer = self.special[trap](cpu, offset, size, value, access)
  else
    local exit, verdict = handle(cpu, kind)
    if verdict == "park" then
      cpu.parked = true
      return
    elseif exit and not cpu.stopping and not self.stopping then
      return exit, cpu
    end
  end
  if cpu.stopping or self.stopping then
    if answer ~= nil and cpu[1] then raw_answer(cpu, answer) end
    return stop_asked(self)
  end
  go(self, cpu, id, answer)
end

trace.serves(hand_over, function(locals) return locals.self, locals.cpu, locals.trap end)

local function on_time(self, deadline)
  timers.fire(self)
  if clock() >= deadline then return new_exit "timeout" end
  return stop_asked(self)
end

local function loop(self, deadline)
  local slice, meter = timers.slice(), self.meter
  local take = not meter and raw_next
  while true do
    local one = self.alone
    if one and not one.parked then
      local exit, cpu, code = alone.run(self, deadline < FOREVER and deadline or 0)
      if exit ~= ELSEWHERE then return exit, cpu, code end
      if all_parked(self) then return new_exit "parked" end
    end
    take = take or meter:taking(raw_next)
    local moment = self.next_timer
    if not moment or deadline < moment then moment = deadline end
    local exit, cpu
    if moment < FOREVER and clock() >= moment then
      exit, cpu = on_time(self, deadline)
    else
      local kind, trap, offset, size, value, access, id =
        take(self, moment < slice and moment or slice)
      if not kind then return nil, trap, offset end
      if kind ~= 0 then
        exit, cpu = hand_over(self, kind, trap, offset, size, value, access, id)
      else
        slice = timers.slice()
      end
    end
    if exit then return exit, cpu end
    if all_parked(self) then return new_exit "parked" end
  end
end

local function stop_after(self, ...)
  if self[1] then stop_all(self) end
  return ...
end

local function run(self, deadline)
  local ok, message, code = start_all(self, raw.start_here)
  if not ok then return nil, message, code end
  if all_parked(self) then return new_exit "parked" end
  alone.find(self)
  return loop(self, deadline)
end

local function run_and_stop(self, deadline)
  return stop_after(self, run(self, deadline))
end

local function finish(self, ok, ...)
  if self.meter then self.meter:leave(ok and (...)) end
  alone.leave(self)
  if self[1] and not ok then stop_all(self) end
  self.serving = false
  if not ok then error((...), 0) end
  local value, message, code = ...
  if value and not value.cpu and value.kind ~= "stopped" and self[1] then
    rawset(value, "vcpus", stand.all(self, HLT))
  end
  if value == nil and message ~= nil then return check.result(nil, message, code) end
  return ...
end

local function poll(self)
  timers.fire(self)
  local exit, cpu = stop_asked(self)
  for _ = 1, POLL_MOST do
    if exit then break end
    local kind, trap, offset, size, value, access, id = raw_next(self, 0)
    if kind == 0 then return end
    if not kind then -- nil, message, code, number of the vCPU
      if size then runner.join(self.started[size]) end
      return nil, trap, offset
    end
    exit, cpu = hand_over(self, kind, trap, offset, size, value, access, id)
  end
  if exit then
    if not cpu then
      stop_all(self)
    elseif cpu.started then
      runner.join(cpu)
    end
  end
  return exit, cpu
end

-- ---- Methods ----

local run_options = { timeout = true, deadline = true }
local timer_options = { period = true }

local function seconds(what, value, least)
  if type(value) ~= "number" or value ~= value or value < least then
    error(("%s: seconds from %g on expected, got %s"):format(what, least, tostring(value)), 3)
  end
  return value
end

-- Where a run was dropped with a handler suspended, the handler's vCPU still waits for it: its exit
-- comes again.
local function free_dropped(self)
  local cpu = self.serving
  self.serving = false
  if cpu and cpu[1] and self.started[cpu.id] == cpu and not cpu.parked then
    runner.join(cpu)
    runner.start(cpu)
  end
end

local function check_free(self, what)
  if runner.busy(self.runner) then
    error(what .. ": this VM is running: a handler is at work, or its coroutine is suspended", 3)
  end
  free_dropped(self)
end

local function check_vcpus(self, what)
  for _, cpu in ipairs(self.vcpus) do
    if runner.busy(cpu.runner) then error(what .. ": cpu:run is running one of its vCPUs", 3) end
  end
end

local open = class.opener(class.class "vm")

return function(methods)
  --- Runs all vCPUs that are not parked, each on a thread of its own, but a single one in this
  --- thread until another is started; and hands their exits to devices and handlers, as cpu:run
  --- does, until one that nobody takes: it stops all of them and returns the exit and its vCPU.
  --- Without a vCPU come the exits "timeout" (options.timeout: seconds; options.deadline: a moment
  --- of luna.clock()), "stopped" (vm:stop) and "parked": all vCPUs are, and no timer is left.
  --- "timeout" and "parked" say in exit.vcpus where each vCPU stands, a list of { cpu =, rip =,
  --- parked =, halted =, stuck = (halted with interrupts off), waits = ("INIT" or "SIPI") }. An
  --- error in a handler or timer is raised from here, when all are stopped; the access stays open.
  --- nil, message, code where KVM refuses to go on, or where no thread can be made.
  function methods.run(self, options)
    open(self)
    options = check.options("vm:run", options, run_options)
    local deadline = limits.deadline("vm:run", options)
    check_free(self, "vm:run")
    check_vcpus(self, "vm:run")
    if self.meter then deadline = self.meter:enter(deadline) end
    if deadline == 0 then deadline = FOREVER end
    self.stopping = false
    timers.stop_due(self, false)
    for _, cpu in ipairs(self.vcpus) do cpu.stopping = false end
    return finish(self, runner.protect(self.runner, trace.back, run_and_stop, self,
      deadline))
  end

  --- Starts all vCPUs that are not parked; vm:poll then answers their exits.
  function methods.start(self)
    open(self)
    check_vcpus(self, "vm:start")
    if self.meter then self.meter:start() end
    if not runner.busy(self.runner) then
      free_dropped(self)
      self.stopping = false
      timers.stop_due(self, false)
    end
    return check.result(start_all(self))
  end

  --- Ends the threads of all vCPUs. From a device, handler or timer: the cpu:run, vm:run or vm:poll
  --- that has called it returns, when that is done, with exit.kind "stopped" and exit.value; from
  --- elsewhere: the next vm:poll does, unless a vCPU is started before.
  function methods.stop(self, value)
    open(self)
    local runs = runner.busy(self.runner)
    if runs then self.stopping = { value } end
    if self.alone then self.alone.stopping = { value } end
    for _, cpu in ipairs(self.vcpus) do
      if runner.busy(cpu.runner) then cpu.stopping, runs = { value }, true end
    end
    if runner.busy(self.runner) then return true end
    local comes = not runs and (value ~= nil or next(self.started))
    local ok, message, code = stop_all(self)
    if ok and comes then
      self.stopping = { value }
      timers.stop_due(self, true)
    end
    return check.result(ok, message, code)
  end

  --- cpu:pause and cpu:resume for all vCPUs that are started, also where it fails for some.
  function methods.pause(self)
    open(self)
    return check.result(each_started(self, raw.pause))
  end

  function methods.resume(self)
    open(self)
    return check.result(each_started(self, raw.resume))
  end

  --- Answers what waits, without waiting: the exits of started vCPUs and the timers that are due.
  --- An exit that nobody takes is returned with its vCPU, whose thread has ended: answer it if it
  --- is open, and cpu:start goes on. nil where all was answered; nil, message, code where KVM
  --- refuses to run one. An error in a handler stops all vCPUs and is raised.
  function methods.poll(self)
    open(self)
    check_free(self, "vm:poll")
    if self.meter then self.meter:enter(0) end
    return finish(self, runner.protect(self.runner, trace.back, poll, self))
  end

  --- A file descriptor that is readable when vm:poll has something to do, for an event loop. It is
  --- the VM's, and closed with it.
  function methods.fd(self)
    open(self)
    local fd, message, code = raw.vm_fd(self)
    if not fd then return check.result(nil, message, code) end
    self.polled = true
    timers.alarm(self)
    return fd
  end

  --- Calls fn(timer) in `seconds`, and then every options.period seconds, from whatever runs the VM
  --- then: cpu:run, vm:run or vm:poll. timer:close() takes it back. A periodic one keeps its beat:
  --- moments that pass while nothing runs are counted in timer.missed and not made up for.
  function methods.timer(self, delay, fn, options)
    open(self)
    seconds("vm:timer: delay", delay, 0)
    check.callable("vm:timer", fn)
    local period = check.options("vm:timer", options, timer_options).period
    if period ~= nil then
      period = math.floor(math.min(seconds("vm:timer: period", period, 1e-6), LONGEST) * 1e9)
    end
    return timers.new(self, math.floor(math.min(delay, LONGEST) * 1e9), fn, period)
  end
end
