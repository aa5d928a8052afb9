-- SPDX-License-Identifier: MIT
-- The instances of a class of devices: what they have, how they are made, and reset.

local class = require "lunavisor.class"
local clocks = require "lunavisor.device.clock"
local dmas = require "lunavisor.device.dma"
local fifos = require "lunavisor.device.fifo"
local lines = require "lunavisor.device.line"
local ports = require "lunavisor.device.port"
local stores = require "lunavisor.device.store"
local timers = require "lunavisor.device.timer"

local M = {}

local OPTIONS = { name = true, clock = true, dma = true, log = true }

-- What instances have for themselves, which no register, line or field can be called.
M.OWN = {
  read = true, write = true, name = true, options = true, clock = true, dma = true, lines = true,
  inputs = true, regions = true, handles = true, unknowns = true, todos = true, alarms = true,
  seen = true, logger = true, now = true, class = true, timed = true, vm = true,
  ports = true, read_block = true, write_block = true, stored = true, buffers = true,
}

--- The methods of all devices: dump.lua adds its, init.lua those of state.lua.
M.methods = {}
local methods, OWN = M.methods, M.OWN
for name, fn in pairs(timers.methods) do methods[name] = fn end
methods.start = ports.start

local function copy(value)
  if type(value) ~= "table" then return value end
  local made = {}
  for key, part in pairs(value) do made[key] = copy(part) end
  return made
end

M.copy = copy

local function describe_missing(layout, key, tail, level)
  local names = {}
  for _, set in ipairs { layout.getters, methods, layout.own, layout.lines, layout.buffers, OWN } do
    for name in pairs(set) do if type(name) == "string" then names[name] = true end end
  end
  local hint, line = class.hint(key, names), layout.lines[1]
  if hint == "" and line and lines.methods[key] then
    hint = ("; lines have: dev.%s:%s(...)"):format(line.name, key)
  end
  error(("device %s has no %s %s%s%s"):format(layout.name, tail == ""
    and "register, field or method" or "register or field", tostring(key), tail, hint), level + 1)
end

-- What vm:pio and its neighbours look for in any device.
local PROTOCOL = { memory = true, offset = true, read_block = true, write_block = true }

-- The kit's methods by name, each of which looks at what it is called with.
local guarded

--- What all devices have, for the class's own methods to stand in front of.
function M.guarded()
  if guarded then return guarded end
  guarded = {}
  for name, fn in pairs(methods) do
    guarded[name] = function(d, ...)
      if type(d) ~= "table" or not rawget(d, "class") then
        error(("dev:%s: a device expected, got %s; call it with a colon: dev:%s(...)"):format(name,
          class.describe(d), name), 2)
      end
      return fn(d, ...)
    end
  end
  return guarded
end

--- The metatable of a class's instances.
function M.metatable(layout)
  local getters, setters, own = layout.getters, layout.setters, layout.own
  local lines_of = layout.lines
  local meta = { __name = "device " .. layout.name }
  function meta.__index(d, key)
    local get = getters[key]
    if get then return get(d) end
    local method = layout.methods[key]
    if method ~= nil then return method end
    local buffer = rawget(d, "buffers")[key]
    if buffer then return buffer end
    local line = type(key) == "string" and lines_of[key]
    if line then return rawget(d, line.slot) end
    if key == "now" then return rawget(d, "clock").now end
    if own[key] or PROTOCOL[key] or class.is_probe(key) then return nil end
    describe_missing(layout, key, "", 2)
  end
  function meta.__newindex(d, key, value)
    local set = setters[key]
    if set then
      set(d, value, 2)
    elseif own[key] then
      rawset(d, key, value)
    elseif type(key) == "string" and lines_of[key] then
      error(("device %s: %s is a line: dev.lines.%s = true sets its level"):format(layout.name, key,
        key), 2)
    elseif layout.buffers[key] then
      error(("device %s: buffer %s cannot be set: write into it"):format(layout.name, key), 2)
    else
      describe_missing(layout, key, " that can be set; declare fields in 'state' or 'holds'", 2)
    end
  end
  function meta.__tostring(d) return methods.dump(d) end
  return meta
end

local function stderr(text)
  io.stderr:write(text, "\n")
end

local function add_lines(d, layout)
  local levels = {}
  for _, about in ipairs(layout.lines) do
    local line = lines.new(d.name .. "." .. about.name)
    line.ruled = about.ruled
    d[about.slot] = line
  end
  d.lines = setmetatable({}, {
    __index = function(_, name)
      local about = layout.lines[name]
      if about and type(name) == "string" then return d[about.slot].level end
      error(("device %s has no line %s%s"):format(d.name, tostring(name),
        class.hint(name, layout.lines)), 2)
    end,
    __newindex = function(_, name, level)
      local about = type(name) == "string" and layout.lines[name]
      if not about or about.ruled then
        error(("device %s has no line %s that can be set%s"):format(d.name, tostring(name),
          about and ": it follows its rule" or class.hint(name, layout.lines)), 2)
      end
      d[about.slot]:set(level)
    end,
    __pairs = function() return pairs(levels) end,
  })
end

--- The line of a device by that name; nil where it has none.
function M.line(d, name)
  local about = rawget(d, "class").layout.lines[name]
  return about and rawget(d, about.slot)
end

local function add_input(d, layout, key, fn)
  d.inputs[key] = lines.new(("%s.inputs.%s"):format(d.name, tostring(key)), function(level)
    fn(d, level)
    if layout.update then layout.update(d) end
  end)
end

local function add_inputs(d, layout, spec)
  local inputs = spec.inputs
  d.inputs = {}
  if type(inputs) == "number" then
    for i = 0, inputs - 1 do
      add_input(d, layout, i, function(device, level) spec.input(device, i, level) end)
    end
  else
    for name, fn in pairs(inputs or {}) do add_input(d, layout, name, fn) end
  end
  setmetatable(d.inputs, { __index = function(_, key)
    error(("device %s has no input %s%s"):format(d.name, tostring(key),
      class.hint(key, type(inputs) == "table" and inputs or {})), 2)
  end })
end

local function region_name(d, layout, region)
  return #layout.regions > 1 and d.name .. "." .. region.name or d.name
end

--- Calls a device otherwise, and with it what belongs to it: lines, inputs, regions, DMA.
function M.rename(d, name)
  local layout = rawget(d, "class").layout
  d.name, d.dma.name = name, name
  for _, about in ipairs(layout.lines) do d[about.slot].name = name .. "." .. about.name end
  for key, input in pairs(d.inputs) do input.name = ("%s.inputs.%s"):format(name, tostring(key)) end
  for _, region in ipairs(layout.regions) do
    d.regions[region.name].name = region_name(d, layout, region)
  end
end

local function add_regions(d, layout)
  d.regions = {}
  for _, region in ipairs(layout.regions) do
    local read, write = region.read_access, region.write_access
    local name = region_name(d, layout, region)
    local get, put = region.read_block, region.write_block
    d.regions[region.name] = { name = name, owner = d, size = region.size, exposed = false,
      places = {},
      read_block = get and function(_, ...) return get(d, ...) end,
      write_block = put and function(_, ...) return put(d, ...) end,
      read = function(_, offset, size) return read(d, offset, size) end,
      write = function(_, offset, size, value) return write(d, offset, size, value) end }
  end
  local main = layout.regions.main or layout.regions[1]
  d.read, d.write = main.read_access, main.write_access
  d.read_block, d.write_block = main.read_block, main.write_block
end

local function clear_register(d, layout, register)
  local value = register.initial
  for slot = register.slot, register.slot + (register.count or 1) - 1 do
    if register.fifo then
      d[slot] = d[slot] or fifos.new(register, d, layout.update)
      fifos.empty(d[slot])
      d[slot].lost, d[slot].trigger = 0, register.trigger or 1
    else
      d[slot] = register.resets and register.resets[slot - register.slot] or value
    end
  end
end

-- The registers, FIFOs and declared fields as they are at power-on, but those of `keeps`.
local function clear(d, layout, keeps)
  for _, register in ipairs(layout.registers) do
    if not keeps[register.name] then clear_register(d, layout, register) end
  end
  for name, value in pairs(layout.spec.state or {}) do
    if not keeps[name] then d[name] = copy(value) end
  end
  for name in pairs(layout.ports) do d.ports[name] = ports.new() end
end

--- Brings all lines up to date: for what a line's function looks at and the kit does not see.
function methods.update(d)
  local layout = rawget(d, "class").layout
  if layout.refresh then layout.refresh(d) end
  if layout.update then layout.update(d) end
end

--- Puts the device into the state of its table: registers, FIFOs, declared fields; timers end, and
--- lines without a rule are down. What `keeps` names goes on as it is, as behind a
--- battery. Then the table's reset function is called with what else is given.
function methods.reset(d, ...)
  local layout = rawget(d, "class").layout
  for name in pairs(rawget(d, "alarms")) do
    if not layout.keeps[name] then methods.cancel(d, name) end
  end
  clear(d, layout, layout.keeps)
  for _, about in ipairs(layout.lines) do
    if not about.ruled then d[about.slot]:set(false) end
  end
  if layout.spec.reset then layout.spec.reset(d, ...) end
  methods.update(d)
end

--- Says something of the device: "edu: text".
function methods.log(d, text)
  local log = rawget(d, "logger")
  if not log then return end
  local head = d.name .. ": " -- which messages of its DMA have
  text = tostring(text)
  log(text:sub(1, #head) == head and text or head .. text, d)
end

-- Checks what an instance is made with.
local function check_options(layout, options, level)
  if options ~= nil and type(options) ~= "table" then
    error(("device %s: a table of options expected, got %s"):format(layout.name,
      class.describe(options)), level + 1)
  end
  local own = layout.spec.options or {}
  for key in pairs(options or {}) do
    if not OPTIONS[key] and own[key] == nil then
      local names = copy(OPTIONS)
      for name in pairs(own) do names[name] = true end
      error(("device %s: unknown option '%s'%s"):format(layout.name, tostring(key),
        class.hint(key, names)), level + 1)
    end
  end
  return options or {}
end

local function options_of(layout, given)
  local options = copy(layout.spec.options or {})
  for key, value in pairs(given) do
    if not OPTIONS[key] then options[key] = value end
  end
  return options
end

--- An instance of the class. options: name, clock (device.clock()), dma (memory for dev.dma), log
--- (a function(text, device), or false), and what the table's `options` name.
function M.new(kind, options, level)
  local layout = kind.layout
  options = check_options(layout, options, level + 1)
  local d = { name = options.name or layout.name, class = kind, handles = {}, unknowns = {},
    todos = {}, alarms = {}, seen = false, stored = false,
    timed = options.clock ~= nil, vm = false, ports = {}, buffers = {},
    clock = options.clock or clocks.fake(),
    dma = dmas.new(options.name or layout.name, options.dma),
    options = options_of(layout, options) }
  d.logger = options.log == nil and stderr or options.log
  clear(d, layout, {})
  stores.add(d, layout)
  add_lines(d, layout)
  add_inputs(d, layout, layout.spec)
  add_regions(d, layout)
  setmetatable(d, layout.meta)
  if layout.spec.init then layout.spec.init(d, d.options) end
  methods.reset(d)
  methods.mark(d)
  return d
end

return M
