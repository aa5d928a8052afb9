-- SPDX-License-Identifier: MIT
-- Dates of the Gregorian calendar from seconds since 1970 and back, for clocks; no time zones.

local floor = math.floor

local M = {}

-- Days up to March 1 of the year 0, from 1970: years begin in March here, so that leap days are
-- their last.
local ORIGIN = 719468

-- Days since 1970 of a day of such a year, whose months count from 0.
local function days_of(year, month, day)
  local era = floor(year / 400)
  local of_era = year - 400 * era
  return era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100)
    + floor((153 * month + 2) / 5) + day - 1 - ORIGIN
end

--- { year, month (1 to 12), day, hour, minute, second, weekday (0 is Sunday) } of whole seconds.
function M.date(seconds)
  local days = floor(seconds / 86400)
  local rest = seconds - days * 86400
  local of_era = (days + ORIGIN) % 146097
  local era = floor((days + ORIGIN) / 146097)
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524)
    - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  return {
    year = year + era * 400 + (month >= 10 and 1 or 0), month = (month + 2) % 12 + 1,
    day = of_year - floor((153 * month + 2) / 5) + 1, weekday = (days + 4) % 7,
    hour = floor(rest / 3600), minute = floor(rest / 60) % 60, second = rest % 60,
  }
end

--- Seconds of such a date, whatever its numbers are: the 32nd is the first of the next month.
function M.seconds(date)
  local month = date.month - 3
  local year = date.year + floor(month / 12)
  return days_of(year, month % 12, date.day) * 86400 + date.hour * 3600 + date.minute * 60
    + date.second
end

return M
