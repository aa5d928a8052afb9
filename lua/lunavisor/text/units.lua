-- SPDX-License-Identifier: MIT
-- Numbers with their units, as people read them.

local M = {}

--- A whole number in groups of three digits: "1,234,567".
function M.number(value)
  local text = ("%.0f"):format(value):reverse():gsub("%d%d%d", "%0,"):reverse()
  return (text:gsub("^(-?),", "%1"))
end

-- A value below 1000 with three digits that count.
local function digits(value)
  local text = ("%.3g"):format(value)
  if text:find "e" then text = ("%.0f"):format(value) end
  return text
end

local TIMES = { { 1e9, "s" }, { 1e6, "ms" }, { 1e3, "\194\181s" }, { 1, "ns" } }

--- A time, given in nanoseconds: "850 ns", "4.56 ms", "12.3 s", "3 min 5 s".
function M.time(nanoseconds)
  local seconds = math.floor(nanoseconds / 1e9 + 0.5)
  if seconds >= 120 then
    return ("%d min %d s"):format(math.floor(seconds / 60), seconds % 60)
  end
  for _, unit in ipairs(TIMES) do
    if nanoseconds >= unit[1] * 0.9995 then
      return digits(nanoseconds / unit[1]) .. " " .. unit[2]
    end
  end
  return "0 s"
end

--- A number of things, short: "12", "3.4 k", "1.25 M".
function M.short(value)
  for _, unit in ipairs { { 1e9, " G" }, { 1e6, " M" }, { 1e3, " k" } } do
    if value >= unit[1] * 0.9995 then return digits(value / unit[1]) .. unit[2] end
  end
  return digits(value)
end

--- A number of bytes: "512 bytes", "64 KiB", "1.5 MiB".
function M.size(bytes)
  for _, unit in ipairs { { 2 ^ 30, " GiB" }, { 2 ^ 20, " MiB" }, { 2 ^ 10, " KiB" } } do
    if bytes >= unit[1] then return digits(bytes / unit[1]) .. unit[2] end
  end
  return bytes == 1 and "1 byte" or ("%.0f bytes"):format(bytes)
end

return M
