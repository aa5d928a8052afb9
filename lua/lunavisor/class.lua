-- SPDX-License-Identifier: MIT
-- The classes of the library: their names, which fields their objects have, and what is said at the
-- caller's line of a name that they have not and of a method that is called without its object.

local M = {}

local classes = {} -- by name
local known = {}   -- by class: { article and name, how a script calls it, methods, fields, more }

--- The class of that name, a metatable; made when it is asked for first. `variable`: what a script
--- calls such an object ("cpu" for a vcpu), the name where nil.
function M.class(name, variable)
  local class = classes[name]
  if not class then
    class = { __name = name }
    classes[name] = class
    known[class] = { title = (name:find "^[aeioAEIO]" and "an " or "a ") .. name,
      variable = name, methods = {}, fields = {} }
  end
  if variable then known[class].variable = variable end
  return class
end

--- The name of the class of an object of the library, nil for anything else.
function M.of(value)
  local class = getmetatable(value)
  local about = type(class) == "table" and known[class]
  return about and class.__name or nil
end

--- What a value is, for messages: "a vcpu", "number".
function M.describe(value)
  local name = M.of(value)
  return name and known[classes[name]].title or type(value)
end

-- ---- Whom to blame ----

local home = debug.getinfo(1, "S").source:match "^(.*)class%.lua$"

--- Whether a function, as debug.getinfo describes it, is one of the library's own.
function M.is_own(info)
  return info.source:sub(1, #home) == home
end

--- The level, for the caller of this, of the innermost Lua function that is not the library's.
function M.outside()
  local level = 2
  local info = debug.getinfo(level, "S")
  while info and (info.what == "C" or M.is_own(info)) do
    level = level + 1
    info = debug.getinfo(level, "S")
  end
  return info and level - 1 or 1
end

-- ---- Names ----

-- How many letters have to be added, left out, changed or swapped with their neighbour.
local function distance(one, other)
  local before, last = {}, {}
  for j = 0, #other do last[j] = j end
  for i = 1, #one do
    local row = { [0] = i }
    for j = 1, #other do
      local same = one:byte(i) == other:byte(j)
      local cost = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and one:byte(i) == other:byte(j - 1)
        and one:byte(i - 1) == other:byte(j) then
        cost = math.min(cost, before[j - 2] + 1)
      end
      row[j] = cost
    end
    before, last = last, row
  end
  return last[#other]
end

-- How far apart two names are; the same letters in other cases, and a name that goes on, are near.
local function apart(one, other)
  local a, b = one:lower(), other:lower()
  if a == b then return 0.5 end
  local short = math.min(#a, #b)
  if short >= 3 and a:sub(1, short) == b:sub(1, short) then
    return 0.5 + (math.max(#a, #b) - short) / 40
  end
  return distance(a, b)
end

--- The name of a set that is nearest to another, nil where none is near.
function M.nearest(name, set)
  local found, least = nil, math.max(1, math.floor(#name / 3)) + 0.1
  for candidate in pairs(set) do
    if type(candidate) == "string" then
      local far = apart(name, candidate)
      if far < least or far == least and candidate < found then found, least = candidate, far end
    end
  end
  return found
end

--- "; did you mean 'rax'?", or nothing.
function M.hint(name, set)
  local near = type(name) == "string" and M.nearest(name, set)
  return near and ("; did you mean '%s'?"):format(near) or ""
end

-- All names that a script can use of an object.
local function names_of(about)
  local names = {}
  for _, set in ipairs { about.methods, about.fields, about.more and about.more() or {} } do
    for name in pairs(set) do names[name] = true end
  end
  return names
end

--- Raises for a name that objects of the class have not; `tail` goes behind it (" that can be
--- set"), `level` as for error.
function M.missing(class, key, tail, level)
  local about = known[class]
  error(("%s has no field '%s'%s%s"):format(about.title, tostring(key), tail or "",
    M.hint(key, names_of(about))), (level or 1) + 1)
end

local missing = M.missing

-- Names that begin so are asked for by whoever looks into objects of all kinds (as testing and
-- printing libraries do), and numbers by ipairs.
local function is_probe(key)
  return type(key) ~= "string" or key:sub(1, 2) == "__"
end

M.is_probe = is_probe

local function set_of(names)
  local set = {}
  for name in (names or ""):gmatch "%S+" do set[name] = true end
  return set
end

--- The names that objects like this one have, and those of their methods: two sets; nil for what is
--- no object of the library.
function M.names(object)
  local about = known[getmetatable(object) or false]
  if about then return names_of(about), about.methods end
end

-- A __newindex that sets the fields there are.
local function writer(class, allowed, own)
  return function(self, key, value)
    if not (is_probe(key) or allowed[key] or own[key]) then
      missing(class, key, " that can be set", 2)
    end
    rawset(self, key, value)
  end
end

--- Says what objects of the class have: `methods`, and `fields`, the names of fields, separated by
--- spaces, any of which may be nil. Fields that are the library's own are in `inner`. Every other
--- name raises, when it is read and when it is set. more(), where there is one, is called for a
--- name that is missing: it may add methods, and is true where it has.
function M.define(class, methods, fields, inner, more)
  local about = known[class]
  about.methods, about.fields = methods, set_of(fields)
  about.more = more and function()
    more()
    return {}
  end
  local own = set_of(inner)
  local allowed = about.fields
  local function index(_, key)
    if is_probe(key) or allowed[key] or own[key] then return nil end
    local method = more and more() and rawget(methods, key)
    if method then return method end
    missing(class, key, nil, 2)
  end
  class.__index = setmetatable(methods, { __index = index })
  class.__newindex = writer(class, allowed, own)
  return class
end

--- A function that calls add(part) for each part of a list when it is called first: of methods that
--- few programs come to use. It returns whether it has.
function M.further(add, parts)
  return function()
    local now = parts
    parts = {}
    for _, part in ipairs(now) do add(part) end
    return #now > 0
  end
end

--- Gives a class that is defined fields that are worked out when they are read: functions of the
--- object by name. They cannot be set.
function M.computed(class, getters)
  local methods = class.__index
  local index = getmetatable(methods).__index
  known[class].more = function() return getters end
  function class.__index(self, key)
    local get = getters[key]
    if get then return get(self) end
    local method = rawget(methods, key)
    if method ~= nil then return method end
    return index(self, key) -- a tail call: the caller is blamed
  end
  return class
end

--- For a class that looks its names up itself: its methods, further fields, and a function that
--- gives a set of more names, all for hints.
function M.announce(class, methods, fields, more)
  local about = known[class]
  about.methods, about.fields, about.more = methods, set_of(fields), more
  class.__newindex = class.__newindex or writer(class, {}, {})
end

--- Makes a table of functions strict: a name that it has not raises.
function M.strict(name, functions)
  local meta = getmetatable(functions) or {}
  local function refuse(tail)
    return function(_, key)
      if is_probe(key) then return nil end
      error(("%s has no field '%s'%s%s"):format(name, key, tail, M.hint(key, functions)), 2)
    end
  end
  meta.__index, meta.__newindex = refuse "", refuse " that can be set"
  return setmetatable(functions, meta)
end

-- ---- Objects ----

-- The name of the method at `level`.
local function method_at(about, level)
  local info = debug.getinfo(level + 1, "fn")
  for name, method in pairs(about.methods) do
    if method == info.func then return name end
  end
  return info.name or "?"
end

--- Raises for a method that was called with something else for its object; the method is at
--- `level`.
function M.wrong_self(class, object, level)
  local about = known[class]
  local call = ("%s:%s"):format(about.variable, method_at(about, level + 1))
  error(("%s: %s expected, got %s; call it with a colon: %s(...)"):format(call, about.title,
    M.describe(object), call), level + 2)
end

local wrong_self = M.wrong_self

--- A function that refuses whatever is no object of the class, for the first line of a method;
--- `depth`: how many calls above it the method is, 1 where nil.
function M.checker(class)
  return function(object, depth)
    if getmetatable(object) ~= class then wrong_self(class, object, (depth or 1) + 1) end
  end
end

--- The same, which refuses a closed object too.
function M.opener(class)
  return function(object, depth)
    if getmetatable(object) ~= class then wrong_self(class, object, (depth or 1) + 1) end
    if not object[1] then
      error(("attempt to use a closed %s"):format(class.__name), (depth or 1) + 2)
    end
  end
end

return M
