-- SPDX-License-Identifier: MIT
-- handles.lua DIRECTORY: checks the raw calls for LuaJIT, lua/lunavisor/binding/ffi*.lua. What
-- allocates may run a finalizer, which may close the object that a call works on: the pointer of
-- vcpu_of(object) goes to C where it is asked for, is not kept, and nothing is called behind it.
-- Prints what it finds; ends with status 1 then.

local root = assert(arg[1], "usage: handles.lua DIRECTORY")
local OF = { vm_of = true, vcpu_of = true, buffer_of = true, lines_of = true }

local problems = 0
local function say(path, line, text)
  problems = problems + 1
  print(("%s:%d: %s"):format(path, line, text))
end

-- Where the parenthesis at `first` is closed.
local function close_of(text, first)
  return select(2, text:find("^%b()", first)) or #text
end

-- The call around the place, from its name to its end; nil where it is in none.
local function call_around(text, place)
  local found
  for first, open in text:gmatch "()[%w_.:]+()%(" do
    local last = close_of(text, open)
    if first < place and last > place then found = { first, last } end
  end
  return found
end

local function check_use(path, line, text, name, first, open)
  local last = close_of(text, open)
  local call = call_around(text, first)
  if not call then
    if text:sub(1, first - 1):find "[=,]%s*$" and not text:find("^%s*return", 1) then
      say(path, line, name .. " is kept: an object may be closed by what is called later")
    end
    return
  end
  for other in text:sub(last + 1, call[2]):gmatch "([%w_.:]+)%(" do
    if not OF[other] then
      say(path, line, ("%s is called behind %s, and may close its object"):format(other, name))
    end
  end
end

-- Statements, with the lines that go on where a parenthesis is open.
local function check_file(path)
  local number, text, first = 0, "", 1
  for line in io.lines(root .. "/" .. path) do
    number = number + 1
    line = line:gsub('"[^"]*"', '""'):gsub("%-%-.*", "")
    if text == "" then first = number end
    text = text .. line .. " "
    local _, opened = text:gsub("%(", "")
    local _, closed = text:gsub("%)", "")
    if opened <= closed then
      for from, name, open in text:gmatch "()([%w_]+)()%(" do
        if OF[name] and not text:find("function " .. name, 1, true) then
          check_use(path, first, text, name, from, open)
        end
      end
      text = ""
    end
  end
end

local list = assert(io.popen(("cd '%s' && ls lua/lunavisor/binding/ffi*.lua"):format(root)))
local count = 0
for path in list:lines() do
  count = count + 1
  check_file(path)
end
list:close()
if count == 0 then say("lua/lunavisor/binding", 0, "no raw calls for LuaJIT found") end
os.exit(problems == 0 and 0 or 1)
