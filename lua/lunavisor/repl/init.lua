-- SPDX-License-Identifier: MIT
-- luna.repl: a prompt at any point of a script, also in a handler.

local check = require "lunavisor.check"

local known = { socket = true }

local unpack = rawget(table, "unpack") or unpack

-- The prompt itself: how it was left, and with how many results.
local function prompt(given, socket, terminal)
  local sockets = require "lunavisor.repl.socket"
  local session = require("lunavisor.repl.session").new(given, socket and socket.say
    or function(text)
      io.stdout:write(text)
      io.stdout:flush()
    end, socket and socket.between)
  local ok, problem = pcall(function()
    if socket then sockets.run(socket, session) else terminal.run(session) end
  end)
  session:close()
  if socket then sockets.close(socket) end
  if not ok then error(problem, 0) end
  return session.leaving
end

local M = {}

--- How a prompt was left ("leave", "quit" or "end"), the number of results, and those; nil,
--- message, code where the socket cannot be made.
function M.ask(names, path)
  local socket, message, code
  if path then
    socket, message, code = require("lunavisor.repl.socket").new(path)
    if not socket then return nil, message, code end
  end
  return unpack(prompt(names, socket, require "lunavisor.repl.terminal"))
end

local function finish(how, ...)
  if how == nil then return nil, ... end
  if how == "quit" then
    io.stdout:flush()
    os.exit(0)
  end
  return select(2, ...)
end

--- A prompt for commands and Lua, on the standard input, until `leave`, whose results it returns,
--- or the end of the input. `names` are at hand there, and are set there: vm, cpu and exit say what
--- the commands are about (`help` lists them). From a handler:
---   return luna.repl { cpu = cpu, exit = exit }
--- options.socket: a Unix socket for programs instead, made for its owner alone, with a line of
--- JSON for each line and each answer. nil, message, code where that cannot be.
function M.repl(names, options)
  if names ~= nil and type(names) ~= "table" then
    error(("luna.repl: a table of names expected, got %s"):format(type(names)), 2)
  end
  options = check.options("luna.repl", options, known)
  if options.socket ~= nil then check.name("luna.repl: socket", options.socket, "a path") end
  return finish(M.ask(names or {}, options.socket))
end

return M
