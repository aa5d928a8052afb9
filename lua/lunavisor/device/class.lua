-- SPDX-License-Identifier: MIT
-- The class of a device: its table checked, and its functions generated, once for all instances.

local class = require "lunavisor.class"
local access = require "lunavisor.device.access"
local bits = require "lunavisor.device.bits"
local compile = require "lunavisor.device.compile"
local handles = require "lunavisor.device.handle"
local instances = require "lunavisor.device.instance"
local layouts = require "lunavisor.device.layout"
local lines = require "lunavisor.device.line"
local ports = require "lunavisor.device.port"
local registers = require "lunavisor.device.register"
local rules = require "lunavisor.device.rule"
local stores = require "lunavisor.device.store"
local timers = require "lunavisor.device.timer"
local u64 = require "lunavisor.text.u64"

local M = {}

local methods, OWN, copy = instances.methods, instances.OWN, instances.copy

local DEVICE = {
  width = true, unknown = true, endian = true, narrow = true, registers = true, regions = true,
  size = true, lines = true, inputs = true, input = true, timers = true, reset = true, state = true,
  holds = true, keeps = true, options = true, init = true, methods = true, version = true,
  upgrade = true, doc = true, attached = true, loaded = true, saving = true,
  buffers = true,
}

-- ---- Checks ----

local function check_names(layout, names, path, what)
  for name in pairs(names or {}) do
    if type(name) ~= "string" or OWN[name] or methods[name] then
      layout.blame(path .. "." .. tostring(name),
        ("a %s cannot be called %s: every device has that"):format(what, tostring(name)))
    elseif path ~= "registers" and layout.by[name] then
      layout.blame(path .. "." .. name, ("a register is called %s too"):format(name),
        layout.by[name].path)
    end
  end
end

local function check_functions(layout, names, path)
  if names ~= nil and type(names) ~= "table" then
    layout.blame(path, "a table of functions by name expected")
  end
  for name, fn in pairs(names or {}) do
    if type(fn) ~= "function" then
      layout.blame(path .. "." .. tostring(name), ("a function expected, got %s"):format(
        class.describe(fn)))
    end
  end
end

local function names_of(layout, key)
  local set, text = {}, layout.spec[key]
  if text ~= nil and type(text) ~= "string" then
    layout.blame(key, "names, separated by spaces, expected")
  end
  for name in (text or ""):gmatch "%S+" do set[name] = true end
  return set
end

local function check_device(layout, spec)
  registers.check_keys(layout.blame, "", spec, DEVICE, "a device")
  for _, key in ipairs { "reset", "init", "upgrade", "input", "attached", "loaded",
    "saving" } do
    registers.check_function(layout.blame, key, spec, key)
  end
  check_functions(layout, spec.timers, "timers")
  check_functions(layout, spec.methods, "methods")
  check_names(layout, layout.by, "registers", "register")
  check_names(layout, spec.lines, "lines", "line")
  check_names(layout, spec.methods, "methods", "method")
  check_names(layout, spec.state, "state", "field")
  stores.check(layout)
  check_names(layout, layout.buffers, "buffers", "buffer")
  if spec.version ~= nil and not registers.is_whole(spec.version, 1, 2 ^ 31) then
    layout.blame("version", "a whole number from 1 expected")
  end
end

-- ---- What is not modelled ----

-- Says and counts what the guest changes of what is declared and not modelled; nil where there is
--- none.
local function todo_of(register)
  local list = {}
  if register.todo then
    list[1] = { name = register.name, mask = register.all, low = 0, todo = register.todo }
  end
  for _, field in ipairs(register.fields) do
    if field.todo then
      list[#list + 1] = { name = register.name .. "." .. field.name, mask = field.mask,
        low = field.low, todo = field.todo }
    end
  end
  if #list == 0 then return nil end
  return function(d, new, old)
    local difference = u64.bxor(new, old)
    for _, part in ipairs(list) do
      if u64.band(difference, part.mask) ~= bits.zero then
        local todos = rawget(d, "todos")
        todos[part.name] = (todos[part.name] or 0) + 1
        d:log(("%s = %s: not modelled (%s)"):format(part.name,
          u64.hex(u64.rshift(u64.band(new, part.mask), part.low)), part.todo))
      end
    end
  end
end

-- ---- Functions ----

-- What a change of a register brings about: those that follow it, and lines. `guest`: it was the
-- guest, and what is not modelled is said.
local function settler(layout, register, guest)
  local leads, todo = register.leads, guest and todo_of(register)
  local later, computed = timers.follow, layout.update
  if not guest then
    local update, pending = nil, compile.is_watched(layout, register)
    return function(d, new, old)
      for i = 1, #leads do later(d, leads[i], new, old) end
      if pending then update, pending = compile.update(layout, register), false end
      if update then update(d) end
      if computed then computed(d) end
    end
  end
  if not todo and #leads == 0 then return nil end
  return function(d, new, old)
    if todo then todo(d, new, old) end
    for i = 1, #leads do later(d, leads[i], new, old) end
  end
end

local function build(layout)
  rules.add(layout, layout.spec.lines)
  layout.update = rules.updater(layout, lines.set)
  layout.refresh = compile.update(layout, nil)
  layout.getters, layout.setters = {}, {}
  for _, register in ipairs(layout.registers) do
    register.settle = settler(layout, register, false)
    local changed = settler(layout, register, true)
    register.watched = changed ~= nil
    compile.register(layout, register, { changed = changed, settle = register.settle })
    layout.getters[register.name], layout.setters[register.name] =
      handles.accessors(layout, register)
  end
  for _, register in ipairs(layout.registers) do ports.bind(layout, register) end
  for _, region in ipairs(layout.regions) do access.region(layout, region) end
end

-- ---- Classes ----

local Class = {}

-- A class has nothing of what its devices have.
function Class.__index(self, key)
  if class.is_probe(key) or key == "class" or key == "memory" or key == "offset" then return nil end
  error(("device %s: this is the class, which has no %s: %s() makes a device"):format(self.name,
    tostring(key), self.name), 2)
end

function Class.__call(self, options)
  local made = instances.new(self, options, 2)
  return made -- not a tail call: the checks count on this frame
end

function Class.__tostring(self) return "device " .. self.name end
M.Class = Class

--- The classes that were made: a set.
M.known = setmetatable({}, { __mode = "k" })

--- The class of a table, which stands behind the call that `info` tells of.
function M.class(info, name, spec)
  local layout = layouts.new(info, name, spec)
  check_device(layout, spec)
  layout.own, layout.followers = names_of(layout, "holds"), {}
  layout.holds, layout.keeps = copy(layout.own), names_of(layout, "keeps")
  for kept in pairs(layout.keeps) do
    if (spec.state or {})[kept] == nil and not (spec.timers or {})[kept]
      and not layout.by[kept] then
      layout.blame("keeps", ("there is no register, field or timer %s%s"):format(kept,
        class.hint(kept, layout.by)))
    end
  end
  for key in pairs(spec.state or {}) do layout.own[key] = true end
  layout.methods = setmetatable(copy(spec.methods or {}), { __index = instances.guarded() })
  if type(spec.inputs) == "number" and not spec.input then
    layout.blame("inputs", "inputs by number need a function input(dev, number, level)")
  elseif type(spec.inputs) ~= "number" then
    check_functions(layout, spec.inputs, "inputs")
  end
  for _, register in ipairs(layout.registers) do
    for _, lead in ipairs(register.leads) do layout.followers[lead.name] = lead end
  end
  layout.ports = {}
  build(layout)
  layout.meta = instances.metatable(layout)
  local made = setmetatable({ name = name, layout = layout }, Class)
  M.known[made] = true
  return made
end

return M
