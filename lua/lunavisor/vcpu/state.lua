-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: the state of a vCPU beyond its numbered registers.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local cpuid = require "lunavisor.vcpu.cpuid"
local msrs = require "lunavisor.vcpu.msr"
local vector = require "lunavisor.vcpu.vector"
local open = class.opener(class.class "vcpu")

return function(methods, readers, writers)
  for name, kind in pairs(vector.kinds) do
    readers[name] = function(self) return vector.bank(self, kind) end
  end
  readers.xsave, writers.xsave = vector.xsave, vector.set_xsave
  readers.msr = msrs
  readers.cpuid, writers.cpuid = cpuid.table, cpuid.assign

  --- The whole state of the vCPU as a string: registers, events, x87, SSE and AVX state, debug
  --- registers, MSRs, the LAPIC in KVM but for its number, vectors that wait (cpu.irq_waiting) and
  --- an NMI; not memory, CPUID and breakpoints. It can be kept in a file, and put back by
  --- cpu:set_state on this or another vCPU. The same bytes again until something changes. An error
  --- while an exit is open.
  function methods.state(self)
    open(self)
    return check.result(raw.save(self))
  end

  --- Puts a state back that cpu:state gave; an open exit is dropped, and interrupts that came
  --- since. nil, message, code for what is no such string, or of another kind of host, with nothing
  --- changed.
  function methods.set_state(self, state)
    open(self)
    if type(state) ~= "string" then
      error(("cpu:set_state: a string of cpu:state expected, got %s"):format(type(state)), 2)
    end
    local ok, message, code = raw.restore(self, state)
    if code == "state" and self.started then error(message, 2) end
    return ok, message, code
  end

  --- Looks for what the processor would refuse in the registers, and for what would keep exceptions
  --- from becoming exits: true; or nil, the sentence that names the register, the bit and the rule,
  --- and "state"; or nil, what does not lead to the system area, and "not_found".
  function methods.check(self)
    open(self)
    return raw.check(self)
  end
end
