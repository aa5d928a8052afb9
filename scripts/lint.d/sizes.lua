-- SPDX-License-Identifier: MIT
-- Prints each source that is too long to be about one thing, and each folder of too many .c files:
-- sizes.lua [DIRECTORY]. Ends with status 1 if there is one.

local LINES = 500
local LUA_LINES = 400 -- but for specs
local C_FILES = 17 -- in one folder

local root = arg[1] or "."
local problems = 0

local function complain(...)
  print((...):format(select(2, ...)))
  problems = problems + 1
end

-- Programs have no ending; build/ holds what is made.
local pipe = assert(io.popen("cd '" .. root .. "' && find . -type f '(' -name '*.[ch]' "
  .. "-o -name '*.lua' -o -name '*.md' -o -name Makefile -o -path './scripts/*' ')' "
  .. "! -path './build/*' ! -path './.git/*' | sort"))
local folders, order = {}, {}
for path in pipe:lines() do
  path = path:sub(3)
  local lines, first = 0, nil
  for line in io.lines(root .. "/" .. path) do
    first = first or line
    lines = lines + 1
  end
  local is_lua = path:find "%.lua$" or (first or ""):find "^#!.*lua"
  local limit = is_lua and not path:find "^spec/" and LUA_LINES or LINES
  if lines > limit then
    complain("%s: %d lines, more than %d: it is about more than one thing", path, lines, limit)
  end
  local folder = path:match "^(.*)/[^/]*%.c$"
  if folder then
    if not folders[folder] then order[#order + 1] = folder end
    folders[folder] = (folders[folder] or 0) + 1
  end
end
pipe:close()
for _, folder in ipairs(order) do
  if folders[folder] > C_FILES then
    complain("%s: %d .c files, more than %d: make folders of what belongs together", folder,
      folders[folder], C_FILES)
  end
end
os.exit(problems == 0 and 0 or 1)
