-- SPDX-License-Identifier: MIT
-- The keys of a PC's keyboard with 102 keys and the US layout: their codes (IBM, PS/2 Hardware
-- Interface Technical Reference, "Keyboards", scan code set 2), which keys make a character, and
-- what the controller makes of codes of set 2 (there, "Scan Code Translation").

local class = require "lunavisor.class"

local M = {}

-- Name and make code; E0 is the prefix of the keys that the first keyboards had not.
local CODES = [[
  a 1c  b 32  c 21  d 23  e 24  f 2b  g 34  h 33  i 43  j 3b  k 42  l 4b  m 3a  n 31  o 44  p 4d
  q 15  r 2d  s 1b  t 2c  u 3c  v 2a  w 1d  x 22  y 35  z 1a
  0 45  1 16  2 1e  3 26  4 25  5 2e  6 36  7 3d  8 3e  9 46
  ` 0e  - 4e  = 55  \ 5d  [ 54  ] 5b  ; 4c  ' 52  , 41  . 49  / 4a  < 61
  space 29  tab 0d  enter 5a  backspace 66  esc 76
  shift 12  right_shift 59  ctrl 14  right_ctrl e014  alt 11  right_alt e011
  win e01f  right_win e027  menu e02f  caps_lock 58  num_lock 77  scroll_lock 7e
  f1 05  f2 06  f3 04  f4 0c  f5 03  f6 0b  f7 83  f8 0a  f9 01  f10 09  f11 78  f12 07
  insert e070  delete e071  home e06c  end e069  page_up e07d  page_down e07a
  up e075  down e072  left e06b  right e074  print e07c
  kp0 70  kp1 69  kp2 72  kp3 7a  kp4 6b  kp5 73  kp6 74  kp7 6c  kp8 75  kp9 7d
  kp_dot 71  kp_plus 79  kp_minus 7b  kp_star 7c  kp_slash e04a  kp_enter e05a
]]

-- Codes 0x00 to 0x7f as set 1 has them; of the others only 0x83 and 0x84 change.
local TRANSLATED = ([[
  ff 43 41 3f 3d 3b 3c 58 64 44 42 40 3e 0f 29 59  65 38 2a 70 1d 10 02 5a 66 71 2c 1f 1e 11 03 5b
  67 2e 2d 20 12 05 04 5c 68 39 2f 21 14 13 06 5d  69 31 30 23 22 15 07 5e 6a 72 32 24 16 08 09 5f
  6b 33 25 17 18 0b 0a 60 6c 34 35 26 27 19 0c 61  6d 73 28 74 1a 0d 62 6e 3a 36 1c 1b 75 2b 63 76
  55 56 77 78 79 7a 0e 7b 7c 4f 7d 4b 47 7e 7f 6f  52 53 50 4c 4d 48 01 45 57 4e 51 4a 37 49 46 54
]])

local codes, translated, characters = {}, { [0x83] = 0x41, [0x84] = 0x54 }, {}

for name, code in CODES:gmatch "(%S+) (%x+)" do
  codes[name] = { tonumber(code:sub(-2), 16), prefix = #code == 4 and 0xe0 or nil }
  if #name == 1 then characters[name] = { name } end
end

local at = 0
for code in TRANSLATED:gmatch "%x+" do
  translated[at] = tonumber(code, 16)
  at = at + 1
end

for letter in ("abcdefghijklmnopqrstuvwxyz"):gmatch "." do
  characters[letter:upper()] = { letter, shift = true }
end
for plain, shifted in ([[1!2@3#4$5%6^7&8*9(0)`~-_=+\|[{]};:'",<.>/?]]):gmatch "(.)(.)" do
  characters[shifted] = { plain, shift = true }
end
characters["\n"], characters["\r"] = { "enter" }, { "enter" }
characters["\t"], characters[" "] = { "tab" }, { "space" }
characters["\b"], characters["\27"] = { "backspace" }, { "esc" }

--- What the controller makes of a byte of set 2.
function M.translate(byte) return translated[byte] or byte end

--- The bytes of a key that goes down, or up, in set 1 or 2. A name that no key has raises at
--- `level`, with `what` in front.
function M.bytes(what, name, up, set, level)
  local code = codes[name]
  if not code then
    error(("%s: there is no key %s%s"):format(what, tostring(name), class.hint(name, codes)),
      level + 1)
  end
  local list = { code.prefix }
  if set == 1 then
    list[#list + 1] = M.translate(code[1]) + (up and 0x80 or 0)
  else
    if up then list[#list + 1] = 0xf0 end
    list[#list + 1] = code[1]
  end
  return list
end

--- The strokes { name, up } that make a character; nil where no key has it.
function M.strokes(character)
  local key = characters[character]
  if not key then return nil end
  local name = key[1]
  if not key.shift then return { { name, false }, { name, true } } end
  return { { "shift", false }, { name, false }, { name, true }, { "shift", true } }
end

--- The first character of a text, in UTF-8, that no key makes; nil where all have theirs.
function M.missing(text)
  for i = 1, #text do
    if not M.strokes(text:sub(i, i)) then
      return text:match("^[^\128-\191][\128-\191]*", i) or text:sub(i, i)
    end
  end
end

return M
