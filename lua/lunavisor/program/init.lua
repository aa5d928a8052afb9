-- SPDX-License-Identifier: MIT
-- The program luna: its subcommands, one file each, and what its exit statuses are. A subcommand is
-- { about, describe = fn(argparse's command), run = fn(options) -> status }.

local pace = require "lunavisor.program.pace"
local say = require "lunavisor.program.say"

local M = {}

local NAMES = { "run", "boot", "report", "repl", "gdb", "map", "sweep", "probe", "device", "test",
  "init", "man", "completion" }
local COMMANDS = {}
for _, name in ipairs(NAMES) do COMMANDS[name] = true end
local SCRIPTS = { run = 1, repl = 1, gdb = 1, map = 1, report = 2 } -- which argument it is
local WIDTH = 80

local ABOUT = "Runs guests: scripts, kernels, disk images."

local EPILOG = [[
Examples:
  luna hello.lua
  luna boot kernel.elf --timeout 10
  luna boot disk.img --wait-for "login:" --screenshot screen.png
  luna probe --json

Status: the guest's, or 124: its time was up; 125: it panicked or could not go
on; 126: it could not be started, and a line says what to do about it.]]

local FILES = { init = "settings" } -- of those whose name another file has

local function command(name)
  return require("lunavisor.program." .. (FILES[name] or name))
end

-- Of the subcommand that the arguments begin with, or of all.
local function parser_of(list)
  local ok, argparse = pcall(require, "argparse")
  if not ok then
    return nil, "this Lua has no argparse (Debian: apt-get install lua-argparse)"
  end
  local parser = argparse("luna", ABOUT, EPILOG)
  parser:usage_max_width(WIDTH):help_max_width(WIDTH):command_target "command"
  parser:flag("--version", "Show the version."):action(function()
    print(require("lunavisor")._VERSION)
    os.exit(0)
  end)
  for _, name in ipairs(NAMES) do
    if not COMMANDS[list[1]] or name == list[1] then
      command(name).describe(parser:command(name, command(name).about))
    end
  end
  return parser
end

-- The program as its manual page and its completions have it.
local function program()
  local list = {}
  for i, name in ipairs(NAMES) do list[i] = { name = name, subcommand = command(name) } end
  return { about = ABOUT, epilog = EPILOG, commands = list, scripts = SCRIPTS }
end

-- What a script or the guest gets: all behind its name, or behind "--".
local function split(args)
  local list, rest = {}, nil
  for i = 1, #args do
    if rest then
      rest[#rest + 1] = args[i]
    elseif args[i] == "--" then
      rest = {}
    else
      list[#list + 1] = args[i]
    end
  end
  return list, rest
end

-- The options of a subcommand that have a value, by what it tells of itself.
local function valued(subcommand)
  local names = {}
  local node = require("lunavisor.program.recorder").record(subcommand, command(subcommand))
  for _, option in ipairs(node.options) do
    for name in option.name:gmatch "%S+" do names[name] = not option.flag end
  end
  return names
end

-- The arguments as those of a subcommand: `luna x.lua` is `luna run x.lua`. Of those with a script,
-- what is behind that is the script's.
local function arranged(args)
  local list = {}
  for i = 1, #args do list[i] = args[i] end
  if list[1] and list[1]:find "%.lua$" then table.insert(list, 1, "run") end
  local left = SCRIPTS[list[1]]
  if not left then return split(list) end
  if left == 1 and (not list[2] or not list[2]:find "^%-.") then -- quick: there are no options
    return { list[1], list[2] }, { (table.unpack or unpack)(list, 3) }
  end
  local at, names = 2, valued(list[1])
  while list[at] do
    local option = list[at]:find "^%-." and list[at] ~= "--"
    if not option then left = left - 1 end
    if left == 0 then break end
    at = at + (option and names[list[at]] and 2 or 1)
  end
  local head, rest = {}, {}
  for i = 1, math.min(at, #list) do head[i] = list[i] end
  for i = at + 1, #list do rest[#rest + 1] = list[i] end
  return head, rest
end

--- Does what the arguments say; returns the exit status.
function M.main(args)
  local list, rest = arranged(args)
  if list[1] == "run" and list[2] and not list[2]:find "^%-." then -- quick: there are no options
    pace.run()
    return command("run").run { script = list[2], rest = rest }
  end
  local parser, problem = parser_of(list)
  if not parser then return say.cannot(problem) end
  local ok, options = parser:pparse(list)
  if not ok then
    local words = COMMANDS[list[1]] and "luna " .. list[1] or "luna"
    return say.cannot("%s\n%s --help tells more", options, words)
  end
  options.rest, options.words = rest, args
  pace.run()
  return command(options.command).run(options, program)
end

return M
