-- SPDX-License-Identifier: MIT
-- Lines: wires of one bit between devices. A line drives inputs and other lines; an input is up
-- while one of its lines is (wired-or). Levels are kept and edges counted.

local class = require "lunavisor.class"
local trace = require "lunavisor.exit.trace"

local M = {}

local Line = class.class "line"
local mine = class.checker(Line)
local methods = {}

-- ---- Telling of changes ----

-- Changes that nobody has been told of: a change that happens while one is told waits its turn.
local queue, first, last, busy = {}, 1, 0, false
local MOST = 10000 -- changes that come of one

-- Lines mostly drive one thing: without a loop, LuaJIT compiles the whole change as one.
local function tell(source, level)
  local sinks = source.sinks
  local sink = sinks[1]
  if not sinks[2] then
    if sink then sink(level, source) end
    return
  end
  for i = 1, #sinks do sinks[i](level, source) end
end

local function drain()
  local told = 0
  while first <= last do
    local source, level = queue[first], queue[first + 1]
    queue[first], queue[first + 1] = nil, nil
    first = first + 2
    told = told + 1
    if told > MOST then
      error(("line %s: no rest after %d changes: what it drives changes it again and again")
        :format(source.name, MOST), 0)
    end
    tell(source, level)
  end
end

local function begin(source, level)
  tell(source, level)
  if first <= last then drain() end
end

local function finish(ok, problem)
  busy, first, last = false, 1, 0
  if ok then return end
  queue = {}
  error(problem, 0)
end

local function change(self, level)
  self.level = level
  self.edges = self.edges + 1
end

--- Sets the level, true or false, which must be another than it has.
local function set(self, level)
  change(self, level)
  if not self.sinks[1] then return end
  if busy then
    queue[last + 1], queue[last + 2] = self, level
    last = last + 2
    return
  end
  busy = true
  finish(xpcall(begin, trace.back, self, level))
end

M.set = set

-- ---- Lines ----

local function new(name)
  return setmetatable({ name = name, level = false, edges = 0, sinks = {}, targets = {},
    sources = false, ruled = false }, Line)
end

--- A line of that name; `changed`, if not nil, is called as changed(level, line) at every change.
function M.new(name, changed)
  local made = new(name)
  if changed then made.sinks[1], made.targets[1] = changed, changed end
  return made
end

local function level_of(what, level)
  if level == 0 or level == 1 then return level == 1 end
  if type(level) ~= "boolean" then
    error(("%s: true or false (or 1 or 0) expected, got %s"):format(what, class.describe(level)), 3)
  end
  return level
end

local function check_free(self, what)
  if self.ruled then
    error(("%s: line %s follows its rule in the device's table"):format(what, self.name), 3)
  end
end

--- Sets the level: true or 1, false or 0. Not of a line with a rule.
function methods.set(self, level)
  mine(self)
  check_free(self, "line:set")
  level = level_of("line:set", level)
  if level ~= self.level then set(self, level) end
end

--- Changes the level and changes it back: two edges.
function methods.pulse(self)
  mine(self)
  check_free(self, "line:pulse")
  set(self, not self.level)
  set(self, not self.level)
end

-- Notes for a line that is driven what one of its sources has come to. Where that is all that is
-- left to tell it is told at once; `apart`: it comes from elsewhere.
local function drive(self, source, level, apart)
  local sources = self.sources
  if (sources[source] or false) == level then return end
  sources[source] = level
  sources.up = sources.up + (level and 1 or -1)
  local up = sources.up > 0
  if up == self.level then return end
  if apart or not busy or source.sinks[2] or first <= last then return set(self, up) end
  change(self, up)
  tell(self, up)
end

local function sink_of(target)
  if getmetatable(target) == Line then
    if target.ruled then
      error(("line:connect: line %s follows its rule in the device's table"):format(target.name), 3)
    end
    target.sources = target.sources or { up = 0 }
    return function(level, source, apart) drive(target, source, level, apart) end
  elseif type(target) == "function" then
    return target
  end
  error(("line:connect: a line, an input or a function expected, got %s"):format(
    class.describe(target)), 3)
end

--- Drives a line, an input of a device, or a function(level, line), with this one, from its present
--- level on. Returns the target.
function methods.connect(self, target)
  mine(self)
  if self == target then
    error(("line:connect: line %s cannot drive itself"):format(self.name), 2)
  end
  local sink = sink_of(target)
  self.sinks[#self.sinks + 1], self.targets[#self.sinks + 1] = sink, target
  if self.level then sink(true, self, true) end
  return target
end

--- Takes a target away again; a line is down for it then.
function methods.disconnect(self, target)
  mine(self)
  for i = #self.sinks, 1, -1 do
    if self.targets[i] == target then
      if getmetatable(target) == Line then drive(target, self, false, true) end
      table.remove(self.sinks, i)
      table.remove(self.targets, i)
      return true
    end
  end
  error(("line:disconnect: line %s does not drive that"):format(self.name), 2)
end

class.define(Line, methods, "level edges name", "sinks sources targets ruled")

function Line.__tostring(self)
  return ("line %s (%s, %d edge%s)"):format(self.name, self.level and "up" or "down", self.edges,
    self.edges == 1 and "" or "s")
end

M.methods, M.class = methods, Line

return M
