-- SPDX-License-Identifier: MIT
-- luna man: the manual page luna(1), of what the subcommands say of themselves to argparse.

local recorder = require "lunavisor.program.recorder"

local M = { about = "Print this help as a manual page, luna(1)." }

local EPILOG = [[
Examples:
  luna man | man -l -]]

function M.describe(command)
  command:epilog(EPILOG)
end

-- ---- roff ----

-- Text that stands for itself wherever it is in a line.
local function escape(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("\n([.'])", "\n\\&%1")
  return (text:gsub("^([.'])", "\\&%1"))
end

local function words(text)
  return escape((text:gsub("%s+", " ")))
end

local function bold(text) return "\\fB" .. escape(text) .. "\\fR" end

local function italic(text) return "\\fI" .. escape(text) .. "\\fR" end

-- ---- Elements ----

local function value_name(option)
  local said = option.said
  return said.choices and table.concat(said.choices, "|") or said.argname
    or option.name:match "([%w-]-)$"
end

-- "-m SIZE, --memory SIZE"
local function label(option)
  local parts = {}
  for name in option.name:gmatch "%S+" do
    parts[#parts + 1] = bold(name) .. (option.flag and "" or " " .. italic(value_name(option)))
  end
  return table.concat(parts, ", ")
end

local function about(element)
  local default = element.said.default
  return element.about .. (default and (" (default: %s)"):format(default) or "")
end

local function argument_text(argument)
  local name = italic(argument.name)
  local many = argument.said.args == "*" or argument.said.args == "+"
  if argument.said.args == "*" or argument.said.args == "?" or argument.said.default then
    name = "[" .. name .. "]"
  end
  return many and name .. "..." or name
end

-- How it is called, a line for each way.
local function usage(node, name)
  if node.usage_text then
    local lines = {}
    for line in node.usage_text:gsub("^Usage: ", ""):gmatch "[^\n]+" do
      lines[#lines + 1] = bold(line:gsub("^%s+", ""):gsub("%s+$", ""))
    end
    return lines
  end
  local parts = { bold(name) }
  if #node.options > 0 then parts[2] = "[" .. italic "OPTION" .. "...]" end
  for _, argument in ipairs(node.arguments) do parts[#parts + 1] = argument_text(argument) end
  if #node.commands > 0 then parts[#parts + 1] = italic "COMMAND" .. " ..." end
  return { table.concat(parts, " ") }
end

-- ---- Sections ----

-- An epilog: examples stand as they are, of the rest only the text.
local function add_epilog(out, epilog)
  for part in ((epilog or "") .. "\n\n"):gmatch "(.-)\n\n+" do
    local examples = part:match "^Examples:\n(.*)$"
    if examples then
      out[#out + 1] = ".PP\nExamples:\n.RS 4\n.nf"
      for line in examples:gmatch "[^\n]+" do out[#out + 1] = escape((line:gsub("^  ", ""))) end
      out[#out + 1] = ".fi\n.RE"
    elseif part:find "%S" then
      out[#out + 1] = ".PP\n" .. words(part)
    end
  end
end

local function add_command(out, node, name)
  out[#out + 1] = ('.SS "%s"'):format(escape(name))
  out[#out + 1] = table.concat(usage(node, name), "\n.br\n")
  out[#out + 1] = ".PP\n" .. words(node.about or "")
  for _, list in ipairs { node.arguments, node.options } do
    for _, element in ipairs(list) do
      if not element.said.hidden then
        out[#out + 1] = ".TP\n" .. (list == node.options and label(element)
          or italic(element.name)) .. "\n" .. words(about(element))
      end
    end
  end
  add_epilog(out, node.epilog_text)
  for _, inner in ipairs(node.commands) do add_command(out, inner, name .. " " .. inner.name) end
end

local STATUS = "^(.-)\n\nStatus: (.*)$"

local function date()
  return os.date("!%Y-%m-%d", tonumber(os.getenv "SOURCE_DATE_EPOCH")) -- nil: now
end

--- The page as text; `program` is { about =, epilog =, commands = a list of { name, subcommand } }.
function M.page(program)
  local examples, status = program.epilog:match(STATUS)
  local out = {
    ('.TH LUNA 1 "%s" "%s" "User Commands"'):format(date(),
      escape(require("lunavisor")._VERSION)),
    ".SH NAME\nluna \\- " .. words((program.about:gsub("^%u", string.lower):gsub("%.$", ""))),
    ".SH SYNOPSIS\n" .. bold "luna" .. " " .. italic "COMMAND" .. " ...",
    ".br\n" .. bold "luna" .. " " .. italic "SCRIPT.lua" .. " [" .. italic "ARGUMENT" .. "...]",
    ".SH DESCRIPTION\n" .. words(program.about) .. " A script that is named in place of a command "
      .. "is run.",
    ".PP\n" .. bold "--help" .. " behind any command shows what it takes, " .. bold "--version"
      .. " the version; " .. bold "luna completion" .. " prints what lets bash, zsh or fish "
      .. "complete commands and options.",
  }
  add_epilog(out, examples)
  out[#out + 1] = ".SH COMMANDS"
  for _, one in ipairs(program.commands) do
    add_command(out, recorder.record(one.name, one.subcommand), "luna " .. one.name)
  end
  out[#out + 1] = ".SH EXIT STATUS\n" .. words((status:gsub("^%l", string.upper)))
  out[#out + 1] = ".SH SEE ALSO\n.BR busted (1),\n.BR gdb (1),\n.BR nasm (1)"
  return table.concat(out, "\n") .. "\n"
end

--- Status 0.
function M.run(_, program)
  io.stdout:write(M.page(program()))
  return 0
end

return M
