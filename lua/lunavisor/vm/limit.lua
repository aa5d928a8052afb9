-- SPDX-License-Identifier: MIT
-- When a run of a vCPU ends although the guest would go on: at a moment, or after so many exits.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"

local M = {}

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

-- Seconds beyond which a deadline is none: they would not fit KVM's clock.
local FOREVER = 1e9

local function check_time(who, what, value)
  if value ~= nil and (type(value) ~= "number" or value < 0 or value ~= value) then
    error(("%s: %s: seconds from 0 on expected, got %s"):format(who, what, tostring(value)), 4)
  end
  return value
end

--- The moment, in nanoseconds, at which a run with these options ends; 0 for none. To be called by
--- the public function.
function M.deadline(who, options)
  local timeout, deadline = check_time(who, "timeout", options.timeout),
    check_time(who, "deadline", options.deadline)
  if timeout == nil and deadline == nil then return 0 end
  local moment = math.huge
  if timeout and timeout <= FOREVER then moment = raw.clock() + floor(timeout * 1e9) end
  if deadline and deadline <= FOREVER then moment = min(moment, ceil(deadline * 1e9)) end
  return moment == math.huge and 0 or max(moment, 1)
end

--- raw.run for a run that ends after `most` exits: it then gives the exit kind `signal`, which the
--- loop passes over, and stops the run. Neither signals count nor `timeout`, for timers come that
--- way. Only a run that has such a limit pays for it. To be called by the public function.
function M.entries(most, signal, timeout)
  local left = check.whole("cpu:run: max_exits", most, 1, nil, 2)
  local run, answer_with = raw.run, raw.answer
  local function count(kind, ...)
    if kind ~= signal and kind ~= timeout then left = left - 1 end
    return kind, ...
  end
  return function(self, deadline, answer)
    if left > 0 then return count(run(self, deadline, answer)) end
    if answer ~= nil then answer_with(self, answer) end
    self.stopping = { kind = "limit" }
    return signal
  end
end

return M
