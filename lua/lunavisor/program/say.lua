-- SPDX-License-Identifier: MIT
-- What the program says, and the exit statuses that go with it.

local M = { TIMEOUT = 124, CRASH = 125, CANNOT = 126, INTERRUPTED = 130 }

--- A line on the standard error.
function M.line(form, ...)
  if io.type(io.stdout) == "file" then io.stdout:flush() end
  io.stderr:write("luna: ", select("#", ...) > 0 and form:format(...) or form, "\n")
end

--- Says what is in the way; returns the status.
function M.cannot(form, ...)
  M.line(form, ...)
  return M.CANNOT
end

-- Whether something that was printed is lost, and why where that is known: of a write before this
-- one the file alone knows, which the library asks. What a script has closed is its own.
local function lost()
  if io.type(io.stdout) ~= "file" then return false end
  local ok, problem = io.stdout:flush()
  if not ok then return true, problem end
  local raw = package.loaded["lunavisor.binding.backend"]
  return raw ~= nil and raw.stream_failed(io.stdout)
end

--- The status to end with, in place of that of os.exit: 1 and a line where it would be 0, and what
--- was printed has not all been written.
function M.ending(status)
  local is_lost, problem = lost()
  if not is_lost then return status end
  M.line("not all that was printed could be written%s", problem and ": " .. problem or "")
  return (status == nil or status == true or status == 0) and 1 or status
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
