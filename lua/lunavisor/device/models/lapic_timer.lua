-- SPDX-License-Identifier: MIT
-- The timer of a local APIC (SDM Vol. 3, 11.5.4): one-shot, periodic, or by the time-stamp counter.
-- What it has left is the kit's alarm; its count is computed from that.

local u64 = require "lunavisor.text.u64"

local M = {}

local PERIODIC, DEADLINE = 1, 2

-- Seconds of one count.
local function tick(d)
  return d.step / d.options.frequency
end

--- CURRENT: what is left.
function M.count(d)
  if d.LVT_TIMER.mode == DEADLINE then return 0 end
  local left = d:left "timer"
  return left and math.min(d.INITIAL, math.ceil(left / tick(d) - 1e-6)) or 0
end

-- Goes on from a count.
local function go(d, count)
  d:cancel "timer"
  if count == 0 or d.LVT_TIMER.mode == DEADLINE then return end
  if d.LVT_TIMER.mode ~= PERIODIC then return d:after(count * tick(d), "timer") end
  d:every(math.max(1e-9, d.INITIAL * tick(d)), "timer")
end

--- INITIAL: starts it anew; 0 stops it.
function M.start(d)
  if d.LVT_TIMER.mode == DEADLINE then
    d.INITIAL = 0 -- writes are ignored
  else
    go(d, d.INITIAL)
  end
end

--- LVT_TIMER: another mode; into and out of the deadline's, it stops.
function M.changed(d, new, old)
  local mode, before = math.floor(new / 2 ^ 17) % 4, math.floor(old / 2 ^ 17) % 4
  if mode == before then return end
  if mode == DEADLINE or before == DEADLINE then
    d:cancel "timer"
    d.INITIAL, d.DEADLINE = 0, u64(0)
  elseif d:left "timer" then
    local left = d:left "timer"
    d:cancel "timer"
    if mode == PERIODIC then go(d, d.INITIAL) else d:after(left, "timer") end
  end
end

--- DIVIDE: bits 0, 1 and 3 are a power of two from 2 on, 7 for 1.
function M.divide(d)
  local count = M.count(d)
  d.step = 2 ^ ((d.DIVIDE.high * 4 + d.DIVIDE.low + 1) % 8)
  if d:left "timer" and d.LVT_TIMER.mode ~= DEADLINE then go(d, count) end
end

--- IA32_TSC_DEADLINE: the interrupt comes when the counter, options.tsc(), is there; 0 disarms
--- (11.5.4.1). Ignored in the other modes.
function M.set_deadline(d, value)
  if d.LVT_TIMER.mode ~= DEADLINE then return end
  value = u64.exact(value)
  d:cancel "timer"
  d.DEADLINE = value
  if value == u64(0) then return end
  local now, left = u64.exact(d.options.tsc and d.options.tsc() or math.floor(d.now
    * d.options.tsc_frequency)), 0
  if u64.lt(now, value) then left = u64.tonumber(value - now) / d.options.tsc_frequency end
  d:after(left, "timer")
end

return M
