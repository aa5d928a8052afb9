-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: the time that the guest has taken, its last exits, and its last
-- exceptions and interrupts. What most programs never ask is loaded when they do.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"

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
  --- list, the oldest first, whose text has a line for each; of timeouts one behind the other the
  --- last. Each has kind, serial (what cpu.exits
  --- was with it), and of an access port, gpa or msr, size, access and value: what was written, or
  --- what the script answered, nil where it has not. rip, where somebody has asked for registers
  --- about that time; that of the last is always there. nil, message, code while its thread has it.
  function methods.last_exits(self, count)
    open(self)
    count = check.whole("cpu:last_exits: count", count == nil and 64 or count, 0)
    return check.result(require("lunavisor.exit.past").list(self, count))
  end

  --- The last exceptions and interrupts that were delivered to the guest, or whose delivery failed,
  --- up to `count` of the 16 that are kept, all where nil: a list, the oldest first, whose text has
  --- a line for each. Each has name ("#PF", "interrupt 0x20", "INT 0x80", "NMI"), vector, serial
  --- (from 1), source ("exception", "instruction" or "interrupt"), rip (where the handler returns
  --- to: of a fault the instruction), cs, ring, error_code, of a page fault address, symbol (what
  --- vm.symbols calls rip), and delivered. Where delivering it met another exception, `met` is
  --- that: name, vector, error_code, address, stage ("limit", "gate", "code", "stack", "frame" or
  --- "task") and text, why; `shutdown` where that made a triple fault. They are kept for each space
  --- that the vCPU was in. nil, message, code while its thread has it, and "unsupported" on KVM,
  --- which does not keep them.
  function methods.last_exceptions(self, count)
    open(self)
    count = check.whole("cpu:last_exceptions: count", count == nil and 16 or count, 0)
    return check.result(require("lunavisor.exit.exception").list(self, count))
  end

  readers.exec_time = function(self) return (raw.time(self)) end
  readers.idle_time = function(self) return (select(2, raw.time(self))) end
end
