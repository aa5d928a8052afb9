-- SPDX-License-Identifier: MIT
-- A count that goes on by itself, for devices that compute what they show from the time. It is kept
-- as a timer of the device, so that a saved state goes on where it was, by whatever clock. Such a
-- device has `timers = { epoch = ticks.epoch }`, `state = { passed = 0 }` and starts it at reset.

local M = {}

local PERIOD = 1024 -- seconds

--- The timer.
function M.epoch(d) d.passed = d.passed + PERIOD end

--- Lets it begin.
function M.start(d) d:every(PERIOD, "epoch") end

--- Seconds since then.
function M.seconds(d) return d.passed + PERIOD - d:left "epoch" end

--- Whole periods of so many hertz since then. A moment that a timer was armed for counts: clocks
--- have nanoseconds.
function M.count(d, hertz) return math.floor(M.seconds(d) * hertz + hertz * 1e-9) end

--- Calls the timer of that name at such a count.
function M.at(d, hertz, count, name) d:after(math.max(0, count / hertz - M.seconds(d)), name) end

return M
