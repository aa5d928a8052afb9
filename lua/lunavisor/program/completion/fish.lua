-- SPDX-License-Identifier: MIT
-- The completions for fish: a line for each command, option and argument, which holds within its
-- command alone.

local HEAD = [=[
# Completions of luna for fish, which luna completion fish has printed.

# The command that the line has, and how many arguments are behind it: "device describe 0". Behind a
# script all is the script's own: "run script".
function __luna_place
    set -l place 0
    set -l cmd ''
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch "$place $cmd $word"
            case @commands
                set cmd (string trim -- "$cmd $word")
            case '* --'
                set place script
            case @valued
                set skip 1
            case '* -?*'
            case '*'
                set place (math $place + 1)
        end
        switch "$cmd $place"
            case @scripts
                set place script
        end
        test $place = script; and break
    end
    echo "$cmd $place"
end

# Whether the line is at one of these places; without a number, in the command at any.
function __luna_at
    set -l place (__luna_place)
    contains -- $place $argv; or contains -- (string replace -r ' \d+$' '' -- $place) $argv
end

# Files that end in .lua, and directories.
function __luna_scripts
    __fish_complete_suffix .lua | string match -r '.*(?:\.lua|/)(?:\t.*)?$'
end

complete -c luna -e
complete -c luna -n 'not string match -q "* script" -- (__luna_place)' -f
]=]

local function quote(text) return "'" .. text:gsub("[\\']", "\\%0") .. "'" end

local FILES = { scripts = "(__luna_scripts)", files = "(__fish_complete_path)",
  directories = "(__fish_complete_directories)" }

-- What completes a value: the words of -a.
local function action_of(value)
  local words = { value.kind and FILES[value.kind] or nil }
  for _, word in ipairs(value.words) do words[#words + 1] = word end
  return table.concat(words, " ")
end

local function add(out, at, ...)
  out[#out + 1] = ("complete -c luna -n %s %s"):format(quote("__luna_at " .. quote(at)),
    table.concat({ ... }, " "))
end

local function add_option(out, one, option)
  local words = {}
  for _, name in ipairs(option.names) do
    words[#words + 1] = (name:find "^%-%-" and "-l " or "-s ") .. name:match "[^-].*"
  end
  if option.value then
    local action = action_of(option.value)
    words[#words + 1] = "-x" .. (action ~= "" and " -a " .. quote(action) or "")
  end
  add(out, one.command, table.concat(words, " "), "-d", quote(option.about))
end

--- The text; `commands` as in init.lua.
return function(commands)
  local out, starts, valued, scripts = {}, {}, {}, {}
  for _, one in ipairs(commands) do
    if one.script then scripts[#scripts + 1] = quote(("%s %d"):format(one.command, one.script)) end
    for _, command in ipairs(one.commands) do
      starts[#starts + 1] = quote(("0 %s %s"):format(one.command, command.name))
      add(out, one.command .. " 0", "-a", command.name, "-d", quote(command.about))
    end
    for i, value in ipairs(one.arguments) do
      local action = action_of(#one.commands > 0 and { kind = value.kind, words = {} } or value)
      if action ~= "" then
        add(out, value.many and one.command or ("%s %d"):format(one.command, i - 1), "-k -a",
          quote(action))
      end
    end
    for _, option in ipairs(one.options) do
      add_option(out, one, option)
      for _, name in ipairs(option.value and option.names or {}) do
        valued[#valued + 1] = quote(("* %s %s"):format(one.command, name))
      end
    end
  end
  return (HEAD:gsub("@(%l+)", { commands = table.concat(starts, " "),
    valued = table.concat(valued, " "), scripts = table.concat(scripts, " ") }))
    .. table.concat(out, "\n") .. "\n"
end
