-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: the loop that runs the guest and hands its exits to devices and
-- handlers, and what ends it.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local exits = require "lunavisor.exit.record"
local dispatch = require "lunavisor.exit.dispatch"
local trace = require "lunavisor.exit.trace"
local limits = require "lunavisor.vm.limit"
local runner = require "lunavisor.vm.runner"
local timers = require "lunavisor.vm.timer"

local open = class.opener(class.class "vcpu")
local raw_run, raw_answer, raw_mark = raw.run, raw.answer, raw.mark
local missing, bad_value = dispatch.missing, dispatch.bad_value
local error = error

local WRITE = 2 -- luna_access
local SIGNAL, TIMEOUT = exits.numbers.signal, exits.numbers.timeout

local function stopped(self)
  local value = self.stopping
  self.stopping = false
  local exit = { kind = value.kind or "stopped", value = value[1], cpu = self }
  if self[1] then exit.rip, exit.space = self.rip, self.space end
  return exits.make(exit)
end

-- At the end of the run's time, or when a timer's moment has come: whether it was the former.
local function is_over(self)
  timers.fire(self.vm)
  local limit = self.limit
  timers.look(self.vm)
  limit[1] = timers.limit(self.vm, limit[2])
  return limit[2] ~= 0 and raw.clock() >= limit[2] and not self.stopping
end

-- What a run does in its own way: `enter`, what enters the guest without measurements;
-- `take`(cpu, kind, enter), what becomes of an exit that no device takes: it, where it surfaces;
-- `stopped`(cpu), the exit after cpu:stop and its like.
local own = { enter = raw_run, take = dispatch.handle, stopped = stopped }

-- What the guest is entered by from here on: what measures may say so at each timer.
local function entry(self, enter, way)
  local meter = self.vm.meter
  return meter and meter:entry(enter, way.enter) or enter
end

-- Runs until an exit that nobody handles, or that a handler wants to be returned. A device's answer
-- goes with the next entry, by `enter`: the way's, or what stands for it.
local function loop(self, limit, enter, way)
  way = way or own
  local devices, special, hits = self.vm.served, self.vm.special, self.vm.hits
  local answer
  while true do
    local kind, trap, offset, size, value, access = enter(self, limit[1], answer)
    if not kind then
      if kind == false then bad_value(answer, offset, size, "the device") end
      return nil, trap, offset
    end
    answer = nil
    local device = devices[trap]
    if device then -- dispatch.serve in place; raw.run looks whether a read's answer is one
      hits[trap] = hits[trap] + 1
      if access == WRITE then
        local write = device.write or missing(device, "write", offset)
        write(device, offset, size, value)
        answer = 0
      else
        local read = device.read or missing(device, "read", offset)
        answer = read(device, offset, size)
        if answer == nil then bad_value(nil, offset, size, "the device") end
      end
    elseif special[trap] then
      hits[trap] = hits[trap] + 1
      answer = special[trap](self, offset, size, value, access)
    elseif kind == TIMEOUT and not is_over(self) then
      enter = entry(self, enter, way)
    elseif kind ~= SIGNAL then -- at which the hook of 5.4 and LuaJIT has run by now
      local exit = way.take(self, kind, enter)
      if exit and not self.stopping then return exit end
    end
    if self.stopping then
      if answer ~= nil and self[1] then raw_answer(self, answer) end
      return way.stopped(self)
    end
  end
end

trace.serves(loop, function(locals) return locals.self.vm, locals.self, locals.trap end)

-- A handler may suspend the run by yielding; while its coroutine lives, nobody else may run the
-- vCPU.
local function check_idle(self, who)
  if runner.busy(self.runner) then
    error(who .. ": this vCPU is running: a handler is at work, or its coroutine is suspended", 3)
  elseif self.vm.started[self.id] == self and raw.started(self) then
    error(("%s: vCPU %d is started, and its thread runs it; cpu:join ends that")
      :format(who, self.id), 3)
  end
end

local function finish(self, ok, result, message, code)
  local meter = self.vm.meter
  if meter then meter:leave(ok and result) end
  if self[1] then raw.disarm(self) end
  if not ok then error(result, 0) end
  if result == nil then return check.result(nil, message, code) end
  return result
end

-- Runs body(self, limit, ...) with handlers at work; `deadline` on raw.clock(), 0 for none. To be
-- tail called: level 3 is the method's caller.
local function protect(self, who, deadline, body, ...)
  check_idle(self, who)
  if self.temporary then -- of a run that was suspended and dropped
    self.temporary:close()
    self.temporary = false
  end
  local meter = self.vm.meter
  if meter then deadline = meter:enter(deadline, self) end
  self.stopping = false
  local limit = self.limit
  limit[1], limit[2] = timers.limit(self.vm, deadline), deadline
  raw_mark(self) -- exit:explain tells what has changed since
  return finish(self, runner.protect(self.runner, trace.back, body, self, limit, ...))
end

local run_options = {
  timeout = true, deadline = true, max_exits = true, until_rip = true, until_gpa = true,
}

local M = { stopped = stopped, loop = loop, entry = entry } -- for vm:run

--- Adds the methods. `inner` is what the further subjects share: loop, protect, stopped, and from
--- debug.lua run_until.
function M.add(methods, inner)
  inner.loop, inner.protect, inner.stopped = loop, protect, stopped

  --- Runs the vCPU on the calling thread until an exit that no handler takes, and returns that
  --- exit. options.timeout: seconds after which it returns with exit.kind "timeout";
  --- options.deadline: the same as a moment of luna.clock(); of both, what comes first.
  --- options.max_exits: after how many exits that devices and handlers have dealt with it returns
  --- with exit.kind "limit". options.until_rip, options.until_gpa: it returns before the
  --- instruction at that rip, or whose first byte is at that guest-physical address, with exit.kind
  --- "debug" and exit.reached = true. An exit that waits for an answer (pio, mmio, msr, fault,
  --- hypercall) is given again by the next run unless cpu:answer was called. An error in a handler
  --- is raised from here, with its traceback; the access stays open and the next run delivers it
  --- again. Handlers may yield. nil, message, code where KVM refuses to go on, or the guest has
  --- overwritten what is needed to tell which exception it took ("system").
  function methods.run(self, options)
    open(self)
    options = check.options("cpu:run", options, run_options)
    local deadline = limits.deadline("cpu:run", options)
    local enter = options.max_exits and limits.entries(options.max_exits, SIGNAL, TIMEOUT)
      or entry(self, raw_run, own)
    if options.until_rip ~= nil or options.until_gpa ~= nil then
      return inner.run_until(self, deadline, options, enter)
    end
    return protect(self, "cpu:run", deadline, loop, enter)
  end

  --- Makes the run that is under way, or else the next one, return with exit.kind "interrupted".
  function methods.interrupt(self)
    open(self)
    raw.interrupt(self)
  end

  --- From a handler or timer: cpu:run, vm:run or vm:poll returns, when that is done, with exit.kind
  --- "stopped" and exit.value; from elsewhere, where the vCPU is started: the next vm:poll does.
  function methods.stop(self, value)
    open(self)
    local vm = self.vm
    local started = vm.started[self.id] == self
    if not started and not runner.busy(self.runner) then
      error("cpu:stop: this vCPU neither runs nor is started", 2)
    end
    self.stopping = { value }
    if started and not runner.busy(vm.runner) then timers.stop_due(vm, true) end
  end
end

return M
