-- SPDX-License-Identifier: MIT
-- What the program says, and the exit statuses that go with it.

local M = { TIMEOUT = 124, CRASH = 125, CANNOT = 126, INTERRUPTED = 130 }

--- A line on the standard error.
function M.line(form, ...)
  io.stdout:flush()
  io.stderr:write("luna: ", select("#", ...) > 0 and form:format(...) or form, "\n")
end

--- Says what is in the way; returns the status.
function M.cannot(form, ...)
  M.line(form, ...)
  return M.CANNOT
end

--- The message of an error without the place in the library that it names.
function M.plain(message)
  return (tostring(message):gsub("^[^\n]-:%d+: ", ""))
end

--- All that can be seen of an exit behind its sentence, on the standard error.
function M.post_mortem(exit)
  local ok, text = pcall(function() return tostring(exit:explain()):match "\n(.*)" end)
  if ok and text then io.stderr:write(text, "\n") end
end

return M
