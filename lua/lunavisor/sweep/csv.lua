-- SPDX-License-Identifier: MIT
-- Comma-separated values as RFC 4180 has them.

local M = {}

local function field(value)
  local text = value == nil and "" or tostring(value)
  if text:find '[,"\r\n]' or text:find "^%s" or text:find "%s$" then
    return '"' .. text:gsub('"', '""') .. '"'
  end
  return text
end

--- A record of so many fields; nil is an empty one.
function M.record(fields, count)
  local texts = {}
  for i = 1, count do texts[i] = field(fields[i]) end
  return table.concat(texts, ",") .. "\r\n"
end

return M
