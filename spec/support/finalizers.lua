-- SPDX-License-Identifier: MIT
-- A program whose finalizers come into each call of the library at each place where the collector
-- may run them, and there close what the call works on or make the same call on other objects. The
-- call then gives an error that says so, or what it gives undisturbed; of what differs it prints a
-- line. Prints how often a finalizer came into a call.
--
-- finalizers.lua MODULE: alloc.so. LUNA_FINALIZERS_MOST=n tries n places of each call, evenly;
-- without it all of them, each in all ways. LUNA_FINALIZERS_ONLY=pattern: calls with such names;
-- LUNA_FINALIZERS_WAY=name: one of the ways; LUNA_FINALIZERS_JIT=1: LuaJIT compiles what it can.
-- LUNA_ANYWHERE_ELF is an executable with source lines.

local luna = require "lunavisor"
local make_world = require "spec.support.anywhere_world"
local make_calls = require "spec.support.finalizer_calls"

local alloc = assert(package.loadlib(arg[1], "luaopen_alloc"))()
local jit = rawget(_G, "jit")
local MOST = tonumber(os.getenv "LUNA_FINALIZERS_MOST" or "") or math.huge
local ONLY = os.getenv "LUNA_FINALIZERS_ONLY" or ""
local WAY = os.getenv "LUNA_FINALIZERS_WAY"
local COMPILE = jit and os.getenv "LUNA_FINALIZERS_JIT" == "1"

if COMPILE then
  jit.opt.start("hotloop=3", "hotexit=2")
elseif jit then
  jit.off()
end

-- ---- The collector ----

-- It rests until alloc.c ends that at an allocation; the next look at its debt does a whole cycle.
if jit then
  collectgarbage("setstepmul", 0)
else
  collectgarbage("incremental", 1000, 400, 63)
end

local newproxy = rawget(_G, "newproxy")

local function garbage(fn)
  if newproxy then
    getmetatable(newproxy(true)).__gc = fn
  else
    setmetatable({}, { __gc = fn })
  end
end

-- In a coroutine, whose stack goes with it: what is left on this one would keep the object.
local function at_collection(fn)
  coroutine.wrap(garbage)(fn)
end

local function rest()
  collectgarbage("setpause", 1000)
  collectgarbage "stop"
end

-- Calls pcall(call) and fn in a finalizer after n allocations of it, at the next look at the debt,
-- or with `later` (LuaJIT) at the one behind it. The results, whether fn was called.
local function disturb(call, n, later, fn)
  local came, over = 0, false
  local function act()
    if over then return end
    came = came + 1
    if came <= later then return at_collection(act) end
    over = true
    if jit then collectgarbage("setpause", 1000) end
    fn()
  end
  at_collection(act)
  rest()
  if later > 0 then collectgarbage("setpause", 0) end
  alloc.collect_after(n)
  local results = { pcall(call) }
  alloc.collect_after()
  rest()
  local done = over
  over = true
  return results, done
end

-- ---- What a call gives ----

-- Objects with a state of their own, which is not part of what a call gives.
local HANDLES = { vm = true, space = true, buffer = true, vcpu = true, breakpoint = true,
  trap = true, timer = true, eventfd = true, symbols = true, apic = true }

-- All values of a result by where they are.
local function leaves(value, list, path, depth)
  local kind = type(value)
  if kind == "table" and not luna.u64.exact(value) then
    local class = getmetatable(value)
    if class then list[path] = class.__name or "object" end
    local whole = depth < 6 and not (class and HANDLES[class.__name])
    for key, part in next, whole and value or {} do
      leaves(part, list, path .. "." .. tostring(key), depth + 1)
    end
  elseif kind == "function" or kind == "userdata" then
    list[path] = kind
  else
    list[path] = "=" .. tostring(value)
  end
  return list
end

local function outcome(results)
  return leaves(results, {}, "", 0)
end

-- ---- Worlds ----

local OURS = { fill = 0xf4, runs = 3, far = 0x200000, dirty = 0x7000, mode = "real" }
local THEIRS = { fill = 0x90, runs = 100, far = 0x300000, dirty = 0x9000, mode = "protected" }
local ALL = { "cpu", "spare", "vm", "other", "ram" }

local function new_world(options, name)
  local world = make_world(options)
  world.far, world.dirty, world.mode = options.far, options.dirty, options.mode
  local calls, ready = make_calls(world)
  ready(name)
  world.call = calls[name]
  return world
end

local function close(world, list)
  for _, name in ipairs(list or ALL) do world[name]:close() end
end

-- What a call gives in every new world.
local function expected(options, name)
  local one = new_world(options, name)
  local found = outcome { pcall(one.call) }
  close(one)
  for _ = 1, 2 do
    local world = new_world(options, name)
    local again = outcome { pcall(world.call) }
    close(world)
    for path, value in pairs(found) do
      if again[path] ~= value then found[path] = nil end
    end
  end
  return found
end

-- `gone`: patterns of what may be missing.
local function difference(results, wanted, gone)
  local found = outcome(results)
  if not results[1] and wanted[".1"] ~= "=false" then return tostring(results[2]) end
  local function is_gone(path)
    for _, pattern in ipairs(gone or {}) do
      if found[path] == nil and path:find(pattern) then return true end
    end
  end
  for path, value in pairs(wanted) do
    if found[path] ~= value and not is_gone(path) then
      return ("%s: %s, not %s"):format(path, tostring(found[path]):sub(1, 300), value:sub(1, 300))
    end
  end
end

-- ---- Ways ----

-- What may be said where the object is not there any more.
local MEANT = {
  "closed", "this VM has no vCPU", "a former vCPU of that number",
  "expected, got stopped", -- as a run is in which a handler closes its vCPU
}

-- Regions have no buffer that is closed, and an explanation has only what can be read.
local GONE = { "%.buffer$" }

local function is_meant(message)
  message = tostring(message)
  for _, text in ipairs(MEANT) do
    if message:find(text, 1, true) then return true end
  end
  return false
end

local function closing(list)
  return function(name, wanted)
    return function(n, later)
      local world = new_world(OURS, name)
      local results, done = disturb(world.call, n, later, function() close(world, list) end)
      local problem = difference(results, wanted, name == "explain" and { "" } or GONE)
      close(world)
      if not results[1] and is_meant(results[2]) then problem = nil end
      return done, problem
    end
  end
end

local function others(name, wanted)
  local of_others = expected(THEIRS, name)
  return function(n, later)
    local world, other, theirs = new_world(OURS, name), new_world(THEIRS, name), nil
    local results, done = disturb(world.call, n, later, function()
      theirs = { pcall(other.call) }
    end)
    local problem = difference(results, wanted) or theirs and difference(theirs, of_others)
    close(world)
    close(other)
    return done, problem
  end
end

-- Two at each place, and the others in turn: one at each.
local WAYS = { { "all", closing(ALL) }, { "others", others } }
local TURNS = { { "vm", closing { "vm" } }, { "vcpus", closing { "cpu", "spare" } },
  { "buffer", closing { "ram" } }, { "other", closing { "other" } } }

-- ---- All of it ----

local function names_of_calls()
  local world, names = make_world(), {}
  for name in pairs((make_calls(world))) do
    if name:find(ONLY) then names[#names + 1] = name end
  end
  close(world)
  table.sort(names)
  return names
end

local count, said = 0, {}

local function say(name, way, n, later, problem)
  local key = name .. way .. tostring(problem):gsub("0x%x+", "")
  if said[key] then return end
  said[key] = true
  print(("%s, %s, allocation %d%s: %s"):format(name, way, n, later > 0 and " later" or "", problem))
end

-- How many allocations the call has.
local function allocations(name)
  local world = new_world(OURS, name)
  local call = world.call
  alloc.collect_after()
  pcall(call)
  local found = alloc.collect_after()
  close(world)
  return found
end

local place = 0

-- Tries a call at each place, or at every so many.
local function try_all(name)
  local wanted = expected(OURS, name)
  local all = allocations(name)
  local most = math.min(name:find " " and 6 * MOST or MOST, 2 * all + 16) -- " ": of one raw call
  local step = math.max(1, math.ceil(all / most))
  local tries = {}
  for _, list in ipairs { WAYS, TURNS } do
    for _, way in ipairs(list) do
      if not WAY or WAY == way[1] then tries[way] = way[2](name, wanted) end
    end
  end
  local function try(way, n, later)
    if not tries[way] then return false end
    local came, problem = tries[way](n, later)
    if came then count = count + 1 end
    if problem then say(name, way[1], n, later, problem) end
    return came
  end
  local n, came, rounds = 0, true, 0
  while came and rounds <= most do -- compiling allocates as well
    came, rounds = false, rounds + 1
    for later = 0, jit and 1 or 0 do
      place = place + 1
      for _, way in ipairs(WAYS) do came = try(way, n, later) or came end
      for i, way in ipairs(TURNS) do
        if MOST == math.huge or WAY or place % #TURNS + 1 == i then
          came = try(way, n, later) or came
        end
      end
    end
    n = n + step
  end
end

for _, name in ipairs(names_of_calls()) do
  rest()
  try_all(name)
end
print(("a finalizer came %d times"):format(count))
