-- SPDX-License-Identifier: MIT
-- The completions for bash: a function that finds the command and what is behind it, with patterns
-- of "COMMAND OPTION" for what has a value, and "COMMAND NUMBER" for arguments.

local HEAD = [=[
# Completions of luna for bash, which luna completion bash has printed.
_luna() {
  local current=${COMP_WORDS[COMP_CWORD]} command='' option='' place=0 i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    [ "$place" != script ] || continue
    case "$place $command ${COMP_WORDS[i]}" in
      @commands) command=${command:+$command }${COMP_WORDS[i]} ;;
      *' --') place=script ;;
      @valued)
        option=${COMP_WORDS[i]}
        [ "${COMP_WORDS[i + 1]}" != = ] || i=$((i + 1)) # --option=value is three words
        [ $((i + 1)) -ge "$COMP_CWORD" ] || { i=$((i + 1)) option=''; }
        ;;
      *' '-?*) ;;
      *) place=$((place + 1)) ;;
    esac
    case "$command $place" in
      @scripts) place=script ;;
    esac
  done
  [ "$current" != = ] || current=''
  if [ -n "$option" ]; then
    case "$command $option" in
@values
    esac
  elif [[ $place != script && $current == -* ]]; then
    case "$command" in
@options
    esac
  else
    case "$command $place" in
@arguments
      *' script') _luna_complete files ;;
    esac
  fi
}

# What begins with the current word: _luna_complete KIND WORDS.
_luna_complete() {
  local kind=$1 found=()
  shift
  mapfile -t COMPREPLY < <(compgen -W "$*" -- "$current")
  [ "$kind" = words ] || compopt -o filenames 2>/dev/null
  case $kind in
    files) mapfile -t found < <(compgen -f -- "$current") ;;
    directories) mapfile -t found < <(compgen -d -- "$current") ;;
    scripts)
      mapfile -t found < <(compgen -f -X '!*.lua' -- "$current"; compgen -d -- "$current")
      ;;
  esac
  COMPREPLY+=("${found[@]}")
}

complete -F _luna luna
]=]

local function quote(text) return "'" .. text .. "'" end

local function complete(value)
  local words = table.concat(value.words, " ")
  return ("_luna_complete %s%s"):format(value.kind or "words", words ~= "" and " " .. words or "")
end

-- Appends lines of a `case`, the same action once.
local function cases(patterns)
  local order, by_action, out = {}, {}, {}
  for _, one in ipairs(patterns) do
    local list = by_action[one.action]
    if not list then
      list = {}
      by_action[one.action], order[#order + 1] = list, one.action
    end
    list[#list + 1] = one.pattern
  end
  for i, action in ipairs(order) do
    out[i] = ("      %s) %s ;;"):format(table.concat(by_action[action], " | "), action)
  end
  return table.concat(out, "\n")
end

--- The text; `commands` as in init.lua.
return function(commands)
  local starts, valued, scripts, values, options, arguments = {}, {}, {}, {}, {}, {}
  for _, one in ipairs(commands) do
    local names = {}
    for _, command in ipairs(one.commands) do
      starts[#starts + 1] = quote(("0 %s %s"):format(one.command, command.name))
    end
    for _, option in ipairs(one.options) do
      for _, name in ipairs(option.names) do
        names[#names + 1] = name
        if option.value then
          local known = option.value.kind or #option.value.words > 0
          valued[#valued + 1] = ("[0-9]' %s %s'"):format(one.command, name)
          if known then
            values[#values + 1] = { pattern = quote(one.command .. " " .. name),
              action = complete(option.value) }
          end
        end
      end
    end
    options[#options + 1] = { pattern = quote(one.command),
      action = "_luna_complete words " .. table.concat(names, " ") }
    for i, value in ipairs(one.arguments) do
      if value.kind or #value.words > 0 then
        arguments[#arguments + 1] = { action = complete(value),
          pattern = value.many and quote(one.command .. " ") .. "[0-9]*"
            or quote(("%s %d"):format(one.command, i - 1)) }
      end
    end
    if one.script then
      scripts[#scripts + 1] = quote(("%s %d"):format(one.command, one.script))
    end
  end
  return (HEAD:gsub("@(%l+)", {
    commands = table.concat(starts, " | "), valued = table.concat(valued, " | "),
    scripts = table.concat(scripts, " | "), values = cases(values), options = cases(options),
    arguments = cases(arguments),
  }))
end
