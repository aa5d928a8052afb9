-- SPDX-License-Identifier: MIT
-- The state of a device, from its table: save and load, by the names of what there is.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local instances = require "lunavisor.device.instance"
local ports = require "lunavisor.device.port"
local stores = require "lunavisor.device.store"
local timers = require "lunavisor.device.timer"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"

local M = {}
local methods, copy = instances.methods, instances.copy

-- ---- Values ----

-- Values of 8 bytes are texts in a state, which is the same on both engines then.
local function pack(register, value)
  return register.width == 8 and u64.hex(value) or value
end

-- The value, nil where it is none of the register.
local function unpack_value(register, value)
  if type(value) == "string" then
    local ok, made = pcall(u64, value)
    value = ok and made or nil
  end
  local exact = value ~= nil and bits.fits(value, 8 * register.width) or nil
  return exact ~= nil and bits.plain(exact, 8 * register.width) or nil
end

local function save_register(d, register)
  if register.fifo then
    local fifo, list = d[register.slot], {}
    for i, value in ipairs(fifo:list()) do list[i] = pack(register, value) end
    return { fifo = list, trigger = fifo.trigger, lost = fifo.lost }
  elseif register.count then
    local list = {}
    for i = 1, register.count do list[i] = pack(register, d[register.slot + i - 1]) end
    return list
  end
  return pack(register, d[register.slot])
end

-- A register's part of a state, checked: what load_register takes, or nil.
local function check_register(register, saved)
  local list, least = saved, register.count or 0
  if register.fifo then
    list = type(saved) == "table" and saved.fifo or nil
  elseif not register.count then
    return unpack_value(register, saved)
  end
  if type(list) ~= "table" or #list < least or #list > (register.fifo or least) then return nil end
  local values = {}
  for i, value in ipairs(list) do
    values[i] = unpack_value(register, value)
    if values[i] == nil then return nil end
  end
  return { values = values, trigger = saved.trigger, lost = saved.lost }
end

local function load_register(d, register, made)
  if register.fifo then
    local fifo = d[register.slot]
    fifo:clear()
    for _, value in ipairs(made.values) do fifo:push(value) end
    fifo.trigger, fifo.lost = made.trigger or fifo.trigger, made.lost or 0
  elseif register.count then
    for i, value in ipairs(made.values) do d[register.slot + i - 1] = value end
  else
    d[register.slot] = made
  end
end

-- ---- Save ----

--- The state of the device as a table of plain values: { device =, version =, registers =,
--- timers =, lines =, state =, buffers =, without = }. `without` names what the device holds and a
--- state cannot have.
function M.save(d)
  local layout = rawget(d, "class").layout
  if layout.spec.saving then layout.spec.saving(d) end
  local saved = { device = layout.name, version = layout.spec.version or 1, registers = {},
    timers = {}, lines = {}, state = {}, without = sorted(layout.holds) }
  for _, register in ipairs(layout.registers) do
    saved.registers[register.name] = save_register(d, register)
  end
  for name, entry in pairs(rawget(d, "alarms")) do
    saved.timers[name] = { left = rawget(d, "clock"):left(entry.alarm), period = entry.period }
  end
  for _, about in ipairs(layout.lines) do saved.lines[about.name] = d[about.slot].level end
  for name in pairs(layout.spec.state or {}) do saved.state[name] = copy(d[name]) end
  saved.ports, saved.buffers = ports.save(d), stores.save(d)
  return saved
end

-- ---- Load ----

-- Names on one side alone, as sentences.
local function compare(list, what, saved, known)
  for _, name in ipairs(sorted(saved)) do
    if known[name] == nil then
      list[#list + 1] = ("the device has no %s %s%s"):format(what, name, class.hint(name, known))
    end
  end
  for _, name in ipairs(sorted(known)) do
    if saved[name] == nil then list[#list + 1] = ("the state has no %s %s"):format(what, name) end
  end
end

-- The registers of a state, ready to be loaded, and its buffers; what is wrong goes to the list.
local function prepare(layout, saved, list)
  local ready, fill = {}, {}
  compare(list, "register", saved.registers, layout.by)
  compare(list, "field", saved.state, layout.spec.state or {})
  compare(list, "buffer", saved.buffers, layout.buffers)
  for name, size in pairs(layout.buffers) do
    local pages = saved.buffers[name]
    if pages ~= nil and not stores.fits(size, pages) then
      list[#list + 1] = ("buffer %s cannot be what the state has for it"):format(name)
    elseif pages then
      fill[name] = pages
    end
  end
  for name, register in pairs(layout.by) do
    local value = saved.registers[name]
    if value ~= nil then
      ready[register] = check_register(register, value)
      if ready[register] == nil then
        list[#list + 1] = ("register %s cannot be what the state has for it"):format(name)
      end
    end
  end
  for name in pairs(saved.timers) do
    if not (layout.spec.timers or {})[name] and not layout.followers[name] then
      list[#list + 1] = ("the device has no timer %s"):format(name)
    end
  end
  return ready, fill
end

local function load_timers(d, layout, saved)
  for name in pairs(rawget(d, "alarms")) do methods.cancel(d, name) end
  for name, entry in pairs(saved) do
    local lead = layout.followers[name]
    local fn = (layout.spec.timers or {})[name]
    if lead then
      fn = function() timers.take(d, lead) end
    end
    if fn then timers.resume(d, name, entry.left, entry.period, fn) end
  end
end

local function check_state(d, saved, level)
  if type(saved) ~= "table" or type(saved.registers) ~= "table" then
    error(("dev:load: a state, as dev:save gives it, expected, got %s"):format(
      class.describe(saved)), level + 1)
  end
  return { registers = saved.registers, timers = saved.timers or {}, lines = saved.lines or {},
    state = saved.state or {}, ports = saved.ports or {}, buffers = saved.buffers or {},
    device = saved.device or d.name, version = saved.version or 1 }
end

-- The state in this version of the device; nil and a message.
local function upgraded(layout, saved)
  local version = layout.spec.version or 1
  if saved.version == version then return saved end
  if not layout.spec.upgrade then
    return nil, ("the state is of version %s and the device of version %d, without an upgrade "
      .. "function"):format(tostring(saved.version), version)
  end
  return check_state({ name = layout.name }, layout.spec.upgrade(copy(saved), saved.version), 3)
end

local load_options = { partial = true }

--- Puts a state back: true; or nil, message and nothing is changed, where the names of registers,
--- fields or timers are not the same. options.partial: takes what there is of the same name, and
--- returns true and a list of what differs.
function M.load(d, saved, options)
  local layout = rawget(d, "class").layout
  saved = check_state(d, saved, 2)
  for key in pairs(options or {}) do
    if not load_options[key] then
      error(("dev:load: unknown option '%s'; the options are partial"):format(tostring(key)), 2)
    end
  end
  local partial, list = options and options.partial, {}
  if saved.device ~= layout.name then
    return nil, ("device %s: this is a state of device %s"):format(layout.name,
      tostring(saved.device)), "state"
  end
  local why
  saved, why = upgraded(layout, saved)
  if not saved then return nil, ("device %s: %s"):format(layout.name, why), "state" end
  local ready, fill = prepare(layout, saved, list)
  if #list > 0 and not partial then
    return nil, ("device %s: %s"):format(layout.name, table.concat(list, "; ")), "state"
  end
  for register, made in pairs(ready) do load_register(d, register, made) end
  for name, pages in pairs(fill) do stores.load(d.buffers[name], pages) end
  for name in pairs(layout.spec.state or {}) do
    if saved.state[name] ~= nil then d[name] = copy(saved.state[name]) end
  end
  ports.load(d, saved.ports)
  load_timers(d, layout, saved.timers)
  for _, about in ipairs(layout.lines) do
    local level = saved.lines[about.name]
    if not about.ruled and type(level) == "boolean" then d[about.slot]:set(level) end
  end
  if layout.spec.loaded then layout.spec.loaded(d) end
  methods.update(d)
  return true, partial and list or nil
end

return M
