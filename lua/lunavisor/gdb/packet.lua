-- SPDX-License-Identifier: MIT
-- The packets of gdb's remote protocol (gdb's manual, appendix E): $body#checksum, and the bare
-- byte 3 of an interrupt.

local M = {}

local byte, char, format = string.byte, string.char, string.format

--- The digits of bytes, and bytes of digits.
function M.hex(bytes)
  return (bytes:gsub(".", function(c) return format("%02x", byte(c)) end))
end

function M.bytes(digits)
  return (digits:gsub("(%x)(%x)", function(a, b) return char(tonumber(a .. b, 16)) end))
end

-- A byte with its bit 5 turned over.
local function other(c)
  local code = byte(c)
  return char(code % 64 >= 32 and code - 32 or code + 32)
end

--- Binary data within a body: what would end a packet is sent as } and another byte.
function M.escape(data)
  return (data:gsub("[}#$*]", function(c) return "}" .. other(c) end))
end

function M.unescape(data)
  return (data:gsub("}(.)", other))
end

local function checksum(body)
  local sum = 0
  for i = 1, #body do sum = sum + byte(body, i) end
  return sum % 256
end

--- The packet of a body.
function M.frame(body)
  return format("$%s#%02x", body, checksum(body))
end

local MOST = 0x8000 -- bytes of a packet: what is longer is no client's

--- Takes the next thing out of what has come: a kind, what it has, and the rest. Kinds: "packet"
--- with its body, "damaged", "interrupt", "again" (the client wants the last one again); nil where
--- nothing is whole yet. What is between packets is passed over.
function M.next(text)
  local from = text:find "[$\3-]"
  if not from then return nil, nil, "" end
  local first = text:sub(from, from)
  if first == "\3" then return "interrupt", nil, text:sub(from + 1) end
  if first == "-" then return "again", nil, text:sub(from + 1) end
  local finish = text:find("#", from, true)
  if not finish or #text < finish + 2 then
    if #text - from > MOST then return "damaged", nil, "" end
    return nil, nil, text:sub(from)
  end
  local body, sum = text:sub(from + 1, finish - 1), tonumber(text:sub(finish + 1, finish + 2), 16)
  local rest = text:sub(finish + 3)
  if sum ~= checksum(body) then return "damaged", nil, rest end
  return "packet", body, rest
end

return M
