-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: the time that the guest has taken, and its last exits.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local past = require "lunavisor.exit.past"
require "lunavisor.exit.explain"

local open = class.opener(class.class "vcpu")

return function(methods, readers, _writers)
  --- Begins (true) to count the time that the guest takes, from 0, or ends it (false): the fields
  --- exec_time, nanoseconds in the guest up to the last exit, and idle_time, those of them in which
  --- it was halted inside KVM, where its LAPIC is there too. Counting costs two looks at the clock
  --- at each entry.
  function methods.account(self, on)
    open(self)
    if type(on) ~= "boolean" then
      error(("cpu:account: true or false expected, got %s"):format(type(on)), 2)
    end
    return check.result(raw.account(self, on))
  end

  --- The last exits of the vCPU, up to `count` of the 64 that are always kept, all where nil: a
  --- list, the oldest first, whose text has a line for each. Each has kind, serial (what cpu.exits
  --- was with it), and of an access port, gpa or msr, size, access and value: what was written, or
  --- what the script answered, nil where it has not. rip, where somebody has asked for registers
  --- about that time; that of the last is always there. nil, message, code while its thread has it.
  function methods.last_exits(self, count)
    open(self)
    count = check.whole("cpu:last_exits: count", count == nil and 64 or count, 0)
    return check.result(past.list(self, count))
  end

  readers.exec_time = function(self) return (raw.time(self)) end
  readers.idle_time = function(self) return (select(2, raw.time(self))) end
end
