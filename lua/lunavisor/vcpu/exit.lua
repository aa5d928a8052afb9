-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: the time that the guest has taken.

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

  readers.exec_time = function(self) return (raw.time(self)) end
  readers.idle_time = function(self) return (select(2, raw.time(self))) end
end
