-- SPDX-License-Identifier: MIT
-- hot.lua DIRECTORY: checks the compiled software CPU, build/obj/core/soft. A guest's vector state
-- stays in the host's registers while its code runs, so nothing that runs meanwhile may use them:
-- no code of the library but vector/vector.c's own has a vector register in it, and no path from
-- the hot files leads out of it, say to libc's memcpy, before soft_park has saved that state.
-- Prints what it finds; ends with status 1 then.

local root = assert(arg[1], "usage: hot.lua DIRECTORY")

-- What runs while vector state is live; all else is called by these.
local HOT = { "^[^/]*$", "^mmu/", "^execute/", "^deliver/", "^decode/block%.o$",
  "^vector/vector%.o$", "^vector/image%.o$" }
local COLD = { ["room.o"] = true, ["clock.o"] = true }
-- Moves of vector state itself.
local MOVES = { ["vector/vector.o"] = true }
-- Of libc, these are known to leave vector registers alone.
local ALLOWED = { _setjmp = true, longjmp = true, __errno_location = true, __tls_get_addr = true }
local PARK = "soft_park"
local BEGINS = "soft_loop" -- nothing is live yet
local REGISTER = { "%%[xyz]mm%d", "%%mm%d", "%%st[,()%s]", "%%st$", "%%k%d" }

local problems = 0
local function say(...)
  problems = problems + 1
  print(string.format(...))
end

local function is_hot(name)
  for _, pattern in ipairs(HOT) do
    if name:find(pattern) and not COLD[name] then return true end
  end
  return false
end

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  assert(pipe:close(), command)
  return lines
end

-- ---- What the objects have ---------------------------------------------------------------------

local objects = 0
local functions = {} -- by name, or object:name where that is the object's own

local function has_register(text)
  for _, pattern in ipairs(REGISTER) do
    if text:find(pattern) then return true end
  end
  return false
end

-- The functions that are an object's own: others may have some of the same name.
local function read_names()
  local own = {}
  for _, line in ipairs(lines_of(("cd '%s' && nm -A --defined-only $(find . -name '*.o')")
    :format(root))) do
    local object, kind, name = line:match "^%./(%S+):%x+ (%a) (.+)$"
    if kind == "t" then
      own[object] = own[object] or {}
      own[object][name] = true
    end
  end
  return own
end

-- The calls and jumps of each function, in the order of the code, which is that of the source
-- closely enough.
local function read_code(own)
  local object, current, branch
  local function key(name)
    return own[object] and own[object][name] and object .. ":" .. name or name
  end
  for _, line in ipairs(lines_of(("cd '%s' && objdump -dr --no-show-raw-insn "
    .. "$(find . -name '*.o' | sort)"):format(root))) do
    local begins = line:match "^%x+ <([^>]+)>:$"
    local symbol = line:match "R_X86_64_[%w_]+%s+([%w_.$]+)"
    local text = line:match "^%s*%x+:\t(.*)$"
    if line:find "file format" then
      object = line:match "^%./(%S+):"
      objects = objects + 1
    elseif begins then
      current = { object = object, name = begins, calls = {} }
      functions[key(begins)] = current
    elseif symbol then
      if branch then current.calls[#current.calls + 1] = key(symbol) end
      branch = false
    elseif text then
      branch = text:find "^call" or text:find "^j%l+ "
      local target = branch and text:match "<([%w_.$]+)[^>]*>"
      if target and target ~= current.name then
        current.calls[#current.calls + 1] = key(target)
      end
      if has_register(text) and not MOVES[object] then
        say("%s: %s uses a vector register: %s", object, current.name, (text:gsub("%s+", " ")))
      end
    end
  end
end

-- ---- Where they lead ---------------------------------------------------------------------------

local seen = {}

local function follow(name, path)
  local one = functions[name]
  if not one then
    if not ALLOWED[name] and not name:find "^%." then
      say("%s reaches %s while vector state may be live: %s", path[1], name,
        table.concat(path, " -> "))
    end
    return
  end
  if seen[name] then return end
  seen[name] = true
  path[#path + 1] = name
  for _, call in ipairs(one.calls) do
    if call == PARK then break end
    follow(call, path)
  end
  path[#path] = nil
end

if #lines_of(("find '%s' -name '*.o'"):format(root)) > 0 then
  read_code(read_names())
else
  say("there are no objects in %s", root)
end
local names = {}
for name in pairs(functions) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do
  if is_hot(functions[name].object) and name ~= BEGINS then follow(name, {}) end
end
print(("hot: %d objects, %s"):format(objects,
  problems == 0 and "no problem" or problems .. " problems"))
os.exit(problems == 0 and 0 or 1)
