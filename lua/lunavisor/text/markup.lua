-- SPDX-License-Identifier: MIT
-- Texts as parts of HTML and SVG. They may be a guest's: whatever bytes they have, what comes out
-- is UTF-8 without markup.

local M = {}

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

-- The characters of more than one byte, by their first one: the patterns of what may follow
-- (RFC 3629, 4). Those from U+0080 to U+009F control, as the ones below U+0020 do.
local CONTINUED = {
  { "\194", "[\160-\191]" }, { "[\195-\223]", "[\128-\191]" },
  { "\224", "[\160-\191][\128-\191]" }, { "[\225-\236\238\239]", "[\128-\191][\128-\191]" },
  { "\237", "[\128-\159][\128-\191]" }, { "\240", "[\144-\191][\128-\191][\128-\191]" },
  { "[\241-\243]", "[\128-\191][\128-\191][\128-\191]" },
  { "\244", "[\128-\143][\128-\191][\128-\191]" },
}

local function character_at(run, at)
  for _, pair in ipairs(CONTINUED) do
    local found = run:match("^" .. pair[1] .. pair[2], at)
    if found then return found end
  end
end

-- Bytes from 128 on, with those that are no character as \xHH.
local function valid(run)
  local parts, at = {}, 1
  while at <= #run do
    local found = character_at(run, at)
    parts[#parts + 1] = found or ("\\x%02x"):format(run:byte(at))
    at = at + #(found or " ")
  end
  return table.concat(parts)
end

-- A control character as the picture that Unicode has of it.
local function picture(char)
  if char == "\n" or char == "\t" then return char end
  local code = char:byte()
  return "\226\144" .. string.char(code == 127 and 0xa1 or 0x80 + code)
end

--- A text for HTML and SVG, in elements and in attributes with double quotes.
function M.escape(text)
  return (tostring(text):gsub("[\128-\255]+", valid):gsub("%c", picture)
    :gsub('[&<>"]', ESCAPES))
end

--- What a terminal would show, without colours and places: lines end with a line feed, and what
--- moves the cursor begins a new one.
function M.terminal(text)
  return (text:gsub("\27%[[%d;]*[Hf]", "\n"):gsub("\27%[[%d;?]*[ -/]*[@-~]", "")
    :gsub("\27%][^\7\27]*\7?", ""):gsub("\27[()].", ""):gsub("\27[=>78cDEHM]", "")
    :gsub("\r+\n", "\n"):gsub("\n?\r", "\n"))
end

return M
