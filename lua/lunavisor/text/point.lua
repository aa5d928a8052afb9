-- SPDX-License-Identifier: MIT
-- Numbers for files that other programs read, with a point in them: a script may have chosen a
-- locale (os.setlocale) whose numbers have a comma, with which Lua 5.4 writes them too.

local M = {}

--- The number in this form, such as "%.14g".
function M.number(form, value)
  return (form:format(value):gsub("[^%w.+-]+", "."))
end

--- What the function returns, which writes many numbers.
function M.all(write, ...)
  local numeric = os.setlocale(nil, "numeric")
  os.setlocale("C", "numeric")
  local ok, result = pcall(write, ...)
  os.setlocale(numeric, "numeric")
  if not ok then error(result, 0) end
  return result
end

return M
