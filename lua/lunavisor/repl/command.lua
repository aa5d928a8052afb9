-- SPDX-License-Identifier: MIT
-- The commands of a prompt: which they are, which line is one, and help. A file a subject adds
-- them: fn(session, rest of the line) -> text.

local class = require "lunavisor.class"

local M = { list = {}, by_name = {} }

local function add(name, arguments, about, fn)
  local command = { name = name, arguments = arguments, about = about, fn = fn }
  M.list[#M.list + 1], M.by_name[name] = command, command
end

for _, part in ipairs { "run", "point", "look", "machine" } do
  require("lunavisor.repl.command_" .. part)(add)
end

-- Behind a name these make Lua of it: x = 5, c.rip, type(v).
local LUA = "^[=.:%[(,]"

--- The command of a line and what is behind its name; nil where it is Lua.
function M.find(line)
  local name, rest = line:match "^%s*(%a+)%s*(.-)%s*$"
  local command = M.by_name[name]
  if not command or rest:find(LUA) then return nil end
  if rest ~= "" and not line:find "^%s*%a+%s" then return nil end
  return command, rest
end

local HELP = [[
Anything else is Lua: an expression prints itself, globals are the script's.
At hand: vm, cpu, space, exit, luna. Addresses are Lua too, with symbols,
registers and source lines: x rsp + 8 64, b kernel.c:12. Numbers are
hexadecimal, with the decimal behind them.]]

add("help", "[NAME]", "what there is", function(_, rest)
  if rest ~= "" then
    local command = M.by_name[rest]
    if not command then
      error(("there is no command %s%s"):format(rest, class.hint(rest, M.by_name)), 0)
    end
    return ("%s %s: %s"):format(command.name, command.arguments, command.about)
  end
  local lines = {}
  for i, command in ipairs(M.list) do
    lines[i] = ("  %-28s %s"):format(command.name .. " " .. command.arguments, command.about)
  end
  return table.concat(lines, "\n") .. "\n" .. HELP
end)

add("leave", "[RESULTS]", "end the prompt; luna.repl returns the results", function(self, rest)
  self:leave("leave", self:results(rest))
end)

add("quit", "", "end the program", function(self) self:leave "quit" end)

return M
