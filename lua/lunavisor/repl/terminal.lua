-- SPDX-License-Identifier: MIT
-- A prompt at the standard input: with GNU Readline (lua-readline) at a terminal, else plain lines.

local complete = require "lunavisor.repl.complete"
local raw = require "lunavisor.binding.backend"

local M = {}

local PROMPT, MORE = "luna> ", "....> "
local LOOK = 2e7 -- nanoseconds between looks at what runs beside the prompt

-- ---- Lines ----

-- The file of the history, "" where it cannot be written.
local function history()
  local home, state = os.getenv "HOME", os.getenv "XDG_STATE_HOME"
  local path = state and state ~= "" and state .. "/luna_history"
    or home and home .. "/.luna_history"
  local file = path and io.open(path, "a")
  if file then file:close() end
  return file and path or ""
end

-- lua-readline, nil where it is not installed or nobody is at a terminal.
local function readline_of(session)
  if not (raw.stream_is_terminal(0) and raw.stream_is_terminal(1)) then return nil end
  local ok, readline = pcall(require, "readline")
  if not ok then return nil end
  readline.set_options { histfile = history(), keeplines = 1000, completion = true }
  readline.set_readline_name "luna"
  readline.set_complete_function(function(line, _, to)
    local fine, list = pcall(complete.words, session, line:sub(1, to))
    return fine and list or {}
  end)
  readline.set_completion_append_character ""
  return readline
end

-- A line; nil at the end, and "interrupted" behind it after Ctrl-C. `idle` is called meanwhile.
local function edited(readline, prompt, idle)
  local line, done
  raw.interrupt_renew()
  readline.handler_install(prompt, function(text)
    line, done = text, true
    readline.handler_remove()
  end)
  local ok, problem = pcall(function()
    while not done do
      if raw.stream_wait(0, LOOK) then readline.read_char() else idle() end
    end
  end)
  if ok then
    if line and line:find "%S" then readline.add_history(line) end
    return line
  end
  if not done then readline.handler_remove() end
  if not tostring(problem):find("interrupted!", 1, true) then error(problem, 0) end
  return nil, "interrupted"
end

local function plain(prompt, idle)
  if raw.stream_is_terminal(0) then io.stdout:write(prompt) end
  io.stdout:flush()
  raw.interrupt_renew()
  local ok, line = pcall(function()
    while raw.stream_is_terminal(0) and not raw.stream_wait(0, LOOK) do idle() end
    return io.read "*l"
  end)
  if ok then return line end
  if not tostring(line):find("interrupted!", 1, true) then error(line, 0) end
  return nil, "interrupted"
end

-- ---- The prompt ----

local function put(text)
  if text ~= "" then io.stdout:write(text, text:sub(-1) == "\n" and "" or "\n") end
  io.stdout:flush()
end

local function answer(session, line)
  local text, problem, more = session:line(line)
  if more then return true end
  put(text or "error: " .. problem)
end

--- Asks and answers until the session is left, or the input ends: "end".
function M.run(session)
  local readline = readline_of(session)
  local more
  local function idle()
    local text = session:idle()
    if text then put("\n" .. text) end
  end
  while not session.leaving do
    local prompt = more and MORE or PROMPT
    local line, why
    if readline then
      line, why = edited(readline, prompt, idle)
    else
      line, why = plain(prompt, idle)
    end
    if line then
      more = answer(session, line)
    else
      if raw.stream_is_terminal(0) then put "\n" end
      session:forget()
      more = nil
      if why ~= "interrupted" then session:leave "end" end
    end
  end
  if readline then pcall(readline.save_history) end
end

return M
