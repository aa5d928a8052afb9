-- SPDX-License-Identifier: MIT
-- What annotations name, and what a module has, to be compared.

local M = {}

--- The captures of a pattern in a text, in order of the alphabet.
function M.named(text, pattern)
  local names = {}
  for name in text:gmatch(pattern) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The names of a table's functions, likewise.
function M.functions(set)
  local names = {}
  for name, value in pairs(set) do
    if type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

return M
