-- SPDX-License-Identifier: MIT
-- The completions for zsh: a function for each command, which describes its options and arguments
-- to _arguments (zshcompsys).

local HEAD = [=[
#compdef luna
# Completions of luna for zsh, which luna completion zsh has printed.

# Words, and files as _files has them: _luna_or_files WORDS -- OPTIONS.
_luna_or_files() {
  local -a words=("${(@)argv[1,argv[(i)--]-1]}") rest=("${(@)argv[argv[(i)--]+1,-1]}")
  local found=1
  compadd -a words && found=0
  _files "${(@)rest}" && found=0
  return found
}

]=]

local FOOT = [=[
if [ "$funcstack[1]" = _luna ]; then
  _luna "$@"
else
  compdef _luna luna
fi
]=]

local FILES = { files = "", scripts = ' -g "*.lua"', directories = " -/" }

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- Text of a specification, in which these end a part.
local function plain(text) return (text:gsub("[%[%]:\\]", "\\%0")) end

local function function_of(command)
  return "_luna" .. (command ~= "" and "_" .. command:gsub("[^%w]", "_") or "")
end

-- What completes a value: an action of _arguments.
local function action_of(value)
  local words = table.concat(value.words, " ")
  if not value.kind then return words ~= "" and "(" .. words .. ")" or " " end
  if words == "" then return "_files" .. FILES[value.kind] end
  return (" _luna_or_files %s --%s"):format(words, FILES[value.kind]) -- the blank: as it is
end

local function value_text(value)
  return (":%s:%s"):format(plain(value.name), action_of(value))
end

local function option_lines(out, option)
  for _, name in ipairs(option.names) do
    local others = {}
    if not option.again then
      for _, other in ipairs(option.names) do others[#others + 1] = other end
    end
    local long = option.value and name:find "^%-%-" and "=" or ""
    out[#out + 1] = quote((#others > 0 and "(" .. table.concat(others, " ") .. ")" or "*") .. name
      .. long .. "[" .. plain(option.about) .. "]" .. (option.value and value_text(option.value)
      or ""))
  end
end

-- The commands within one, and then what is the chosen one's.
local function add_commands(out, one)
  out[#out + 1] = "  local -a commands=("
  for _, command in ipairs(one.commands) do
    out[#out + 1] = "    " .. quote(plain(command.name) .. ":" .. command.about)
  end
  out[#out + 1] = "  )"
end

local function add_function(out, one)
  local lines = {}
  for _, option in ipairs(one.options) do option_lines(lines, option) end
  out[#out + 1] = function_of(one.command) .. "() {"
  if #one.commands > 0 then
    add_commands(out, one)
    lines[#lines + 1] = quote "1: :->command"
    lines[#lines + 1] = quote "*:: :->rest"
  else
    for i, value in ipairs(one.arguments) do
      lines[#lines + 1] = quote((value.many and "*" or tostring(i)) .. value_text(value))
    end
    if one.script then lines[#lines + 1] = quote "*::argument:_files" end
  end
  -- -A: what is behind a script is the script's.
  local flags = (#one.commands > 0 and "-C " or "") .. "-S" .. (one.script and " -A '-*'" or "")
  if #one.commands > 0 then
    out[#out + 1] = "  local curcontext=$curcontext state line ended=1\n  typeset -A opt_args"
  end
  out[#out + 1] = ("  _arguments %s \\\n    %s%s"):format(flags, table.concat(lines, " \\\n    "),
    #one.commands > 0 and " && ended=0" or "")
  if #one.commands > 0 then
    out[#out + 1] = "  case $state in\n    command)\n      _describe -t commands command commands "
      .. "&& ended=0"
    if one.command == "" then out[#out + 1] = '      _files -g "*.lua" && ended=0' end
    out[#out + 1] = "      ;;\n    rest)\n      case $words[1] in"
    for _, command in ipairs(one.commands) do
      out[#out + 1] = ("        %s) %s && ended=0 ;;"):format(command.name,
        function_of(one.command == "" and command.name or one.command .. " " .. command.name))
    end
    out[#out + 1] = "        *) _files && ended=0 ;;\n      esac\n      ;;\n  esac\n  return ended"
  end
  out[#out + 1] = "}\n"
end

--- The text; `commands` as in init.lua.
return function(commands)
  local out = {}
  for i = #commands, 1, -1 do add_function(out, commands[i]) end
  return HEAD .. table.concat(out, "\n") .. "\n" .. FOOT
end
