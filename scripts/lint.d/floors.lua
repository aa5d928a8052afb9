-- SPDX-License-Identifier: MIT
-- Prints each include of the C sources that leads up the floors of core/, and each circle of
-- includes, with both names: floors.lua [DIRECTORY]. Ends with status 1 if there is one.

-- A wing includes its own files, those of lower floors, the public headers, and what BESIDE names.
local FLOORS = {
  base = 0, kvm = 1, soft = 1, memory = 2, seat = 3, vcpu = 4, interrupt = 5, debug = 5, exit = 5,
  run = 6,
}
local TOP = 7 -- core/*.c and core/*.h
local BESIDE = { soft = { ["core/kvm/kvm.h"] = true, ["core/kvm/kvm_control.h"] = true } }
-- It stands beside the floors, on the public headers and its own.
local FACADE = "hvf"

local root = arg[1] or "."
local problems = 0

local function complain(...)
  print((...):format(select(2, ...)))
  problems = problems + 1
end

-- The names of the C sources, sorted, and the same as a set.
local function list_sources()
  local pipe = assert(io.popen("cd '" .. root .. "' && find core lua spec examples scripts "
    .. "-name '*.[ch]' 2>/dev/null"))
  local names, known = {}, {}
  for name in pipe:lines() do
    names[#names + 1], known[name] = name, true
  end
  pipe:close()
  table.sort(names)
  return names, known
end

-- The file that an include means: beside the one that has it, or below the directories of -I.
local function resolve(name, from, known)
  for _, directory in ipairs { from:match "^(.*)/", "core/include", "core", "spec/core" } do
    local path = directory .. "/" .. name
    if known[path] then return path end
  end
end

-- The includes of a file that are of this project: a list of { line, path }.
local function read_includes(path, known)
  local includes, line = {}, 0
  for text in io.lines(root .. "/" .. path) do
    line = line + 1
    local name = text:match '^%s*#%s*include%s*["<]([^">]+)[">]'
    local target = name and resolve(name, path, known)
    if target then includes[#includes + 1] = { line = line, path = target } end
  end
  return includes
end

-- ---- Floors ----

-- Where a file of core/ stands: "public" with the name of the library, "top", or its wing.
local function place(path)
  if path:find "^core/include/" then
    return "public", path:find "^core/include/Hypervisor/" and FACADE or nil
  end
  local wing = path:match "^core/([^/]+)/"
  if wing then return wing end
  return path:find "^core/" and "top" or nil
end

local function may_include(from, path)
  local to, library = place(path)
  local wing, own = place(from)
  if not to then return false, "core/ stands on its own" end
  if wing == "public" then
    return to == "public" and (own ~= nil or library == nil),
      "a public header includes public headers only"
  end
  if wing == FACADE then
    return to == "public" or to == FACADE,
      "core/" .. FACADE .. " stands on the public headers and its own alone"
  end
  if library or to == FACADE then
    return false, "core/" .. FACADE .. " stands beside the floors, and nothing stands on it"
  end
  if to == "public" or to == wing or (BESIDE[wing] or {})[path] then return true end
  local here, there = FLOORS[wing] or TOP, FLOORS[to] or TOP
  return there < here, there == here
    and ("%s and %s stand side by side on floor %d"):format(wing, to, here)
    or ("%s is on floor %d, %s on floor %d above it"):format(wing, here, to, there)
end

local function check_wing(path, unknown)
  local wing = place(path)
  if wing == "public" or wing == "top" or wing == FACADE or FLOORS[wing] or unknown[wing] then
    return
  end
  unknown[wing] = true
  complain("core/%s: no floor is set for this wing in scripts/lint.d/floors.lua", wing)
end

local function check_floors(names, includes)
  local unknown = {}
  for _, path in ipairs(names) do
    if path:find "^core/" then
      check_wing(path, unknown)
      for _, include in ipairs(includes[path]) do
        local allowed, why = may_include(path, include.path)
        if not allowed then
          complain("%s:%d: includes %s: %s", path, include.line, include.path, why)
        end
      end
    end
  end
end

-- ---- Circles ----

-- Each circle is told once, from where the walk meets it.
local function check_circles(names, includes)
  local state, way = {}, {}
  local function visit(path)
    state[path] = "open"
    way[#way + 1] = path
    for _, include in ipairs(includes[path]) do
      if state[include.path] == "open" then
        local circle, i = { include.path }, #way
        while way[i] ~= include.path do
          table.insert(circle, 2, way[i])
          i = i - 1
        end
        complain("%s:%d: a circle of includes: %s -> %s", path, include.line,
          table.concat(circle, " -> "), include.path)
      elseif not state[include.path] then
        visit(include.path)
      end
    end
    way[#way] = nil
    state[path] = "done"
  end
  for _, path in ipairs(names) do
    if not state[path] then visit(path) end
  end
end

local names, known = list_sources()
local includes = {}
for _, path in ipairs(names) do includes[path] = read_includes(path, known) end
check_floors(names, includes)
check_circles(names, includes)
os.exit(problems == 0 and 0 or 1)
