-- SPDX-License-Identifier: MIT
-- System calls about time. The clock is the script's; a process that sleeps does not wait: its
-- clock goes ahead.

local linux = require "lunavisor.process.linux"
local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"

local int = linux.int

local M = {}

local REALTIME, REALTIME_COARSE, TAI, LAST = 0, 5, 11, 11 -- CLOCK_*
local wall = { [REALTIME] = true, [REALTIME_COARSE] = true, [8] = true, [TAI] = true }
local ABSOLUTE = 1 -- TIMER_ABSTIME
local TICKS = 100  -- a second, of times

-- Seconds of the clock with that number, as a number.
local function now(process, number)
  return process.clock() + process.slept + (wall[number] and process.epoch or 0)
end

local function words(seconds, unit)
  local whole = math.floor(seconds)
  return pack.le64(whole) .. pack.le64(math.floor((seconds - whole) * unit))
end

function M.clock_gettime(process, number, address)
  number = int(number)
  if number < 0 or number > LAST then return "EINVAL" end
  process.memory:write(address, words(now(process, number), 1e9))
  return 0
end

function M.clock_getres(process, number, address)
  if int(number) < 0 or int(number) > LAST then return "EINVAL" end
  if address ~= 0 then process.memory:write(address, pack.le64(0) .. pack.le64(1)) end
  return 0
end

function M.gettimeofday(process, address, zone)
  if address ~= 0 then process.memory:write(address, words(now(process, REALTIME), 1e6)) end
  if zone ~= 0 then process.memory:write(zone, ("\0"):rep(8)) end
  return 0
end

function M.time(process, address)
  local seconds = math.floor(now(process, REALTIME))
  if address ~= 0 then process.memory:write(address, pack.le64(seconds)) end
  return seconds
end

function M.times(process, address)
  local ticks = math.floor(now(process, 1) * TICKS)
  if address ~= 0 then process.memory:write(address, pack.le64(ticks) .. ("\0"):rep(24)) end
  return ticks
end

function M.getrusage(process, _, address)
  process.memory:write(address, words(now(process, 1), 1e6) .. ("\0"):rep(128))
  return 0
end

-- Lets a struct timespec pass, from now on or up to it.
local function sleep(process, number, address, absolute)
  local seconds, nanoseconds = process.memory:word(address), process.memory:word(address + 8)
  if not u64.lt(seconds, 2 ^ 40) or not u64.lt(nanoseconds, 1e9) then return "EINVAL" end
  local span = u64.tonumber(seconds) + u64.tonumber(nanoseconds) / 1e9
  if absolute then span = math.max(0, span - now(process, number)) end
  process.slept = process.slept + span
  return 0
end

function M.nanosleep(process, address) return sleep(process, 1, address, false) end

function M.clock_nanosleep(process, number, flags, address)
  return sleep(process, int(number), address, int(flags) % (2 * ABSOLUTE) >= ABSOLUTE)
end

return M
