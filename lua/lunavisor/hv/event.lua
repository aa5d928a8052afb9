-- SPDX-License-Identifier: MIT
-- The event that the program wants the guest to take at its next entry (SDM Vol. 3, 25.8.3).

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"
local machine = require "lunavisor.hv.machine"

local fail, try, has = call.fail, call.try, call.has

local TYPES = 0x700
local KNOWN = constants.IRQ_INFO_VALID + constants.IRQ_INFO_ERROR_VALID + TYPES + 0xff

local M = {}

local function split(info)
  return call.band(info, TYPES), call.band(info, 0xff)
end

local checks = {
  [constants.IRQ_INFO_NMI] = function(vector)
    if vector ~= 2 then return fail("bad_argument", "an NMI has vector 2") end
    return true
  end,
  [constants.IRQ_INFO_EXT_IRQ] = function()
    if not machine.has(constants.VM_ACCEL_APIC) then return true end
    return fail("unsupported", "the local APIC in KVM injects interrupts: send one")
  end,
  [constants.IRQ_INFO_HARD_EXC] = function(vector)
    if vector > 31 or vector == 2 then
      return fail("bad_argument", "vector %d is no exception", vector)
    end
    return true
  end,
}

--- Whether KVM can inject what the interruption information says.
function M.check(info)
  if not call.within(info, KNOWN) then
    return fail("bad_argument", "%s is no interruption information", u64.hex(info))
  elseif not has(u64.tonumber(info), constants.IRQ_INFO_VALID) then
    return true
  end
  local kind, vector = split(info)
  local check = checks[kind]
  if check then return check(vector) end
  return fail("unsupported", "KVM cannot inject an event of type %d", kind / 0x100)
end

local injections = {
  [constants.IRQ_INFO_NMI] = function(v) return v.cpu:nmi() end,
  [constants.IRQ_INFO_EXT_IRQ] = function(v, vector) return v.cpu:irq(vector) end,
  [constants.IRQ_INFO_HARD_EXC] = function(v, vector)
    return v.cpu:inject(vector, u64.tonumber(v.event_error), v.cpu.cr2)
  end,
}

--- Hands the event to the library. An interrupt that the guest does not accept now waits until it
--- does; a processor would refuse to enter.
function M.inject(v)
  if v.event == u64.exact(0) then return true end
  local kind, vector = split(v.event)
  local ok, message, code = try(injections[kind], v, vector)
  if ok == nil then return nil, message, code end
  v.event = u64.exact(0)
  return true
end

return M
