-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: vCPUs on threads of their own.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local runner = require "lunavisor.vm.runner"
local timers = require "lunavisor.vm.timer"
local open = class.opener(class.class "vcpu")

return function(methods, readers, _writers)
  --- Starts the vCPU on a thread of its own. Its exits wait for vm:run or vm:poll, which hand them
  --- to devices and handlers. Until cpu:join, everything else that is done with it raises, unless
  --- its handler is at work or it is paused. A parked vCPU is not parked any more. nil, message,
  --- code where no thread can be made.
  function methods.start(self)
    open(self)
    if runner.busy(self.runner) then
      error("cpu:start: cpu:run is running this vCPU", 2)
    end
    if self.vm.meter then self.vm.meter:start(self) end
    if self.parked and raw.started(self) then return methods.unpark(self) end
    local ok, message, code = runner.start(self)
    if ok then self.parked = false end
    if ok and not runner.busy(self.vm.runner) then
      self.vm.stopping = false
      timers.stop_due(self.vm, false)
    end
    return check.result(ok, message, code)
  end

  --- Ends the thread: gets the vCPU out of the guest and waits until it is. An exit that waited for
  --- an answer, or that nobody has seen yet, is given by the next run.
  function methods.join(self)
    open(self)
    return check.result(runner.join(self))
  end

  --- Gets a started vCPU out of the guest and keeps it out, so that it can be read and changed.
  --- Pauses count: each needs a cpu:resume.
  function methods.pause(self)
    open(self)
    return check.result(raw.pause(self))
  end

  function methods.resume(self)
    open(self)
    return check.result(raw.resume(self))
  end

  --- Lets a vCPU go on that a handler has parked (by "park"), from another vCPU's handler or a
  --- timer, or between two runs.
  function methods.unpark(self)
    open(self)
    if not self.parked then return true end
    self.parked = false
    if raw.started(self) then return check.result(raw.go(self)) end
    if runner.busy(self.vm.runner) then return methods.start(self) end
    return true
  end

  readers.started = raw.started
end
