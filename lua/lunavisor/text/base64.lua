-- SPDX-License-Identifier: MIT
-- Bytes as text, base64 of RFC 4648, 4.

local floor = math.floor

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- Two digits for each 12 bits.
local pairs_of = setmetatable({}, { __index = function(made, value)
  local high, low = floor(value / 64) + 1, value % 64 + 1
  local two = DIGITS:sub(high, high) .. DIGITS:sub(low, low)
  made[value] = two
  return two
end })

--- The bytes as base64, without line feeds.
return function(bytes)
  local parts, rest = {}, #bytes % 3
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local value = a * 65536 + (b or 0) * 256 + (c or 0)
    parts[#parts + 1] = pairs_of[floor(value / 4096)]
    parts[#parts + 1] = pairs_of[value % 4096]
  end
  local text = table.concat(parts)
  if rest == 0 then return text end
  return text:sub(1, rest - 4) .. ("="):rep(3 - rest)
end
