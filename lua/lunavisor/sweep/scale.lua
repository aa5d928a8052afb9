-- SPDX-License-Identifier: MIT
-- The scales of a picture: numbers to pixels, linear or logarithmic, with ticks at round numbers;
-- numbers as people read them; colours between two.

local M = {}

local floor, log, max, min = math.floor, math.log, math.max, math.min
local LOG10 = log(10)

--- A number, short: 4096, 0.25, 1.5e+09, and 65 536 with its digits in groups.
function M.number(value)
  -- A bit more, as the engines do not round halves the same way.
  local text = ("%.6g"):format(value * (1 + 1e-12))
  local sign, digits, rest = text:match "^(-?)(%d+)(.*)$"
  if not digits or #digits < 5 or rest:find "e" then return text end
  digits = digits:reverse():gsub("(%d%d%d)", "%1 "):reverse():gsub("^ ", "")
  return sign .. digits .. rest
end

local function linear_ticks(low, high, most)
  local span = (high - low) / most
  local power = 10 ^ floor(log(span) / LOG10)
  local step = 10 * power
  for _, factor in ipairs { 1, 2, 5 } do
    if factor * power >= span * 0.999 then
      step = factor * power
      break
    end
  end
  local ticks = {}
  for i = floor(low / step + 1e-9), floor(high / step + 1 - 1e-9) do
    ticks[#ticks + 1] = i * step
  end
  return ticks
end

--- A scale from `from` to `to` pixels for values from low to high: { at(value), ticks }. `snug`:
--- without room up to the next ticks.
function M.linear(low, high, from, to, most, snug)
  if low == high then
    local by = low == 0 and 1 or math.abs(low) / 2
    low, high = low - by, high + by
  end
  local all = linear_ticks(low, high, most)
  local ticks = {}
  if not snug then low, high = min(low, all[1]), max(high, all[#all]) end
  for _, tick in ipairs(all) do
    if tick >= low and tick <= high then ticks[#ticks + 1] = tick end
  end
  return { ticks = ticks, at = function(value)
    return from + (value - low) / (high - low) * (to - from)
  end }
end

-- Powers of ten between the two, or each of their 1, 2 and 5 where those are few.
local function log_ticks(low, high)
  local ticks, first, last = {}, floor(log(low) / LOG10 + 1e-9), floor(log(high) / LOG10 + 1e-9)
  local factors = last - first < 2 and { 1, 2, 5 } or { 1 }
  local every = floor((last - first) / 8) + 1
  for power = first, last, every do
    for _, factor in ipairs(factors) do
      local tick = factor * 10 ^ power
      if tick >= low * 0.999 and tick <= high * 1.001 then ticks[#ticks + 1] = tick end
    end
  end
  return ticks
end

--- The same for a logarithmic scale. `ticks`: those to have, instead of round numbers.
function M.log(low, high, from, to, ticks)
  if low == high then low, high = low / 2, high * 2 end
  local base, span = log(low), log(high) - log(low)
  return { ticks = ticks or log_ticks(low, high), log = true, at = function(value)
    return from + (log(value) - base) / span * (to - from)
  end }
end

--- Whether numbers, in order, grow by a factor and not by steps.
function M.is_geometric(list)
  if #list < 3 or list[1] <= 0 then return false end
  local ratio = list[2] / list[1]
  for i = 2, #list do
    if math.abs(list[i] / list[i - 1] / ratio - 1) > 0.05 then return false end
  end
  return ratio > 1.2
end

-- ---- Colours ----

-- From little to much, the same by day and by night: the text on it is dark or white.
local STOPS = { { 0xf2, 0xf4, 0xe0 }, { 0xa8, 0xd5, 0xb5 }, { 0x4b, 0xa3, 0xb5 },
  { 0x2b, 0x62, 0x9a }, { 0x2a, 0x20, 0x5e } }

--- The colour of a part from 0 to 1, and that of text on it.
function M.colour(part)
  part = max(0, min(1, part)) * (#STOPS - 1)
  local i = min(floor(part), #STOPS - 2)
  local a, b, by, bright = STOPS[i + 1], STOPS[i + 2], part - i, 0
  local channels = {}
  for c = 1, 3 do
    channels[c] = floor(a[c] + (b[c] - a[c]) * by + 0.5)
    bright = bright + channels[c]
  end
  return ("#%02x%02x%02x"):format(channels[1], channels[2], channels[3]),
    bright > 380 and "#1a1a1a" or "#ffffff"
end

return M
