-- SPDX-License-Identifier: MIT
-- luna completion: what lets a shell complete commands, options and their values, made of what the
-- subcommands say of themselves to argparse. One file of this folder writes it for a shell, from
-- the list that is made here.

local recorder = require "lunavisor.program.recorder"

local M = { about = "Print what lets a shell complete commands, options and values." }

local SHELLS = { "bash", "fish", "zsh" }

local EPILOG = [[
Examples:
  eval "$(luna completion bash)"
  luna completion fish | source
  luna completion zsh >~/.zsh/_luna

make install puts all three into place. Of zsh, ~/.zsh has to be in fpath.]]

function M.describe(command)
  command:argument("shell", "bash, fish or zsh."):choices(SHELLS)
  command:epilog(EPILOG)
end

-- What a value can be, by the name that the help has for it; all others are not completed.
local KINDS = {
  FILE = "files", PATH = "files", HOSTS = "files", WHERE = "files", file = "files",
  image = "files", path = "files", report = "files", script = "scripts",
  DIR = "directories", directory = "directories",
}

local function shipped() return require("lunavisor.program.device.open").shipped() end

local function formats()
  local names = {}
  for name in require("lunavisor.load.formats").names:gmatch "[^, ]+" do
    names[#names + 1] = name
  end
  return names
end

-- Words that a value can be, which the help does not list, by command and name.
local WORDS = {
  ["boot --bios"] = function() return { "none" } end,
  ["boot --console"] = function() return { "pty", "stdio" } end,
  ["boot --format"] = formats,
  ["device coverage file"] = shipped,
  ["device describe file"] = shipped,
}

-- A value: its name, what it can be ("files", "scripts", "directories", false), and the words.
local function value_of(command, name, said)
  local words = WORDS[command .. " " .. name]
  local shown = said.argname or name
  return { name = (shown:gsub("^%-+", "")), kind = KINDS[shown] or false,
    words = words and words() or said.choices or {} }
end

local function option_of(command, option)
  local names = {}
  for name in option.name:gmatch "%S+" do names[#names + 1] = name end
  return { names = names, about = (option.about:gsub("%s+", " ")), again = option.said.count == "*",
    value = not option.flag and value_of(command, names[#names], option.said) or nil }
end

local function add(list, node, command, scripts)
  local one = { command = command, about = node.about, commands = {}, options = {}, arguments = {},
    script = scripts[command] }
  list[#list + 1] = one
  for _, argument in ipairs(node.arguments) do
    local value = value_of(command, argument.name, argument.said)
    value.many = argument.said.args == "*"
    if command == "run" then value.kind = "files" end -- a script, or with --linux any program
    one.arguments[#one.arguments + 1] = value
  end
  for _, option in ipairs(node.options) do
    if not option.said.hidden then
      one.options[#one.options + 1] = option_of(command, option)
    end
  end
  one.options[#one.options + 1] = { names = { "-h", "--help" }, about = "Show the help." }
  for _, inner in ipairs(node.commands) do
    one.commands[#one.commands + 1] = { name = inner.name, about = inner.about }
    add(list, inner, command == "" and inner.name or command .. " " .. inner.name, scripts)
  end
  if #one.commands > 0 then
    local names = {}
    for i, inner in ipairs(one.commands) do names[i] = inner.name end
    one.arguments[1] = { name = "command", kind = false, words = names }
  end
end

-- All commands, the one without a name first: lists of { command = its words, about =, commands =
-- a list of { name, about }, options = a list of { names, about, again, value }, arguments = a list
-- of values, script = which of them is a script, behind which all is the script's own or nil }.
local function commands_of(program)
  local root = { name = "", about = program.about, commands = {}, arguments = {}, options = {
    { name = "--version", about = "Show the version.", flag = true, said = {} } } }
  for i, one in ipairs(program.commands) do
    root.commands[i] = recorder.record(one.name, one.subcommand)
  end
  local list = {}
  add(list, root, "", program.scripts)
  list[1].arguments[1].kind, list[1].script = "scripts", 1 -- luna x.lua
  return list
end

--- Status 0.
function M.run(options, program)
  local writer = require("lunavisor.program.completion." .. options.shell)
  io.stdout:write(writer(commands_of(program())))
  return 0
end

return M
