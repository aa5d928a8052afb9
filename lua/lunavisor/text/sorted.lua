-- SPDX-License-Identifier: MIT
-- The names that a table has as its keys, in order.

return function(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end
