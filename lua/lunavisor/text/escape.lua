-- SPDX-License-Identifier: MIT
-- Characters that are written as \n, \r, \t, \e, \\ and \xHH.

local ESCAPES = { n = "\n", r = "\r", t = "\t", e = "\27", ["\\"] = "\\" }

--- A text with such in it as it is meant.
return function(text)
  return (text:gsub("\\(x?)(%x?%x?)([nrte\\]?)", function(x, digits, letter)
    if x == "x" and #digits == 2 then return string.char(tonumber(digits, 16)) .. letter end
    if x == "" and digits:lower() == "e" then return "\27" .. letter end
    if x == "" and digits == "" and ESCAPES[letter] then return ESCAPES[letter] end
  end))
end
