-- SPDX-License-Identifier: MIT
-- Registers that are doors to others: a sequence of registers through one place, the bytes of one
-- register one after the other (pair), and a bank of registers behind an index.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local layouts = require "lunavisor.device.layout"
local registers = require "lunavisor.device.register"

local M = {}

--- Where a device stands in a port: at which step it is read and written, and the bytes so far.
function M.new()
  return { read = 0, write = 0, latched = {}, pending = {} }
end

local function state_of(d, register)
  return rawget(d, "ports")[register.name]
end

-- The guest's functions of a register that may not be on the bus.
local function functions_of(target)
  return target.read_at(target.slot, nil), target.write_at(target.slot, nil)
end

local function reference(layout, register, what, name)
  local target, field = layouts.reference(layout, layout.blame, register.path, what, name)
  if field then layout.blame(register.path, what .. ": a whole register expected") end
  if target == register then
    layout.blame(register.path, what .. ": that is the register itself")
  end
  return target
end

-- ---- Sequences ----

local function step_of(layout, register, step)
  local blame = layout.blame
  if type(step) == "string" then step = { step } end
  if type(step) ~= "table" then blame(register.path, "sequence: names of registers expected") end
  registers.check_keys(blame, register.path, step, { [1] = true, when = true }, "a step")
  registers.check_function(blame, register.path, step, "when")
  return { target = reference(layout, register, "sequence", step[1]), when = step.when }
end

-- Writes go to one step after the other, those left out whose `when` is not true, and then to
-- `rest`; reads go to `rest`. dev:start(name) begins the sequence; until then it is at its end.
local function sequence(layout, register, spec)
  local steps, rest = {}, nil
  for i, step in ipairs(spec.sequence) do steps[i] = step_of(layout, register, step) end
  if spec.sequence.rest ~= nil then
    rest = reference(layout, register, "sequence: rest", spec.sequence.rest)
  end
  register.port.steps, register.port.rest = steps, rest
  local ready = false
  local get, put
  local function bind()
    ready = true
    for _, step in ipairs(steps) do
      local _, write = functions_of(step.target)
      step.put = write
    end
    if rest then get, put = functions_of(rest) end
  end
  register.read_at = function()
    return function(d)
      if not ready then bind() end
      return get and get(d) or 0
    end
  end
  register.write_at = function()
    return function(d, v)
      if not ready then bind() end
      local at = state_of(d, register)
      while steps[at.write] and steps[at.write].when and not steps[at.write].when(d) do
        at.write = at.write + 1
      end
      local step = steps[at.write]
      if step then
        at.write = at.write < #steps and at.write + 1 or 0
        step.put(d, v)
      elseif put then
        at.write = 0
        put(d, v)
      end
    end
  end
end

-- ---- Pairs ----

-- The place of byte number `n` (from 0) of `count`, from 1.
local function place_of(n, count, high_first)
  return high_first and count - n or n + 1
end

local function pair(layout, register, spec)
  local blame, path = layout.blame, register.path
  local target = reference(layout, register, "pair", spec.pair)
  if register.width ~= 1 or target.width == 1 then
    blame(path, "pair: a register of 1 byte, for one of 2, 4 or 8, expected")
  elseif spec.first ~= nil and spec.first ~= "low" and spec.first ~= "high" then
    blame(path, ("first: 'low' or 'high' expected, got %s"):format(tostring(spec.first)))
  end
  register.port.target, register.port.high_first = target, spec.first == "high"
  local count, high_first, shared = target.width, spec.first == "high", spec.shared or false
  local get, put
  local function advance(at, what)
    local next_one = (at[what] + 1) % count
    at[what] = next_one
    if shared then at.read, at.write = next_one, next_one end
  end
  register.read_at = function()
    return function(d)
      if not get then get, put = functions_of(target) end
      local at = state_of(d, register)
      if at.read == 0 or not at.latched[count] then at.latched = bits.bytes(get(d), count) end
      local value = at.latched[place_of(at.read, count, high_first)]
      advance(at, "read")
      return value
    end
  end
  register.write_at = function()
    return function(d, v)
      if not put then get, put = functions_of(target) end
      local at = state_of(d, register)
      if at.write == 0 then
        at.pending = {}
        for i = 1, count do at.pending[i] = 0 end
      end
      local list = at.pending
      list[place_of(at.write, count, high_first)] = v
      advance(at, "write")
      if at.write == 0 then put(d, bits.value(list, count)) end
    end
  end
end

-- ---- Banks ----

-- The register's accesses go to the region `bank`, to the element that `index` names.
local function bank(layout, register, spec)
  local blame, path = layout.blame, register.path
  local region = type(spec.bank) == "string" and layout.regions[spec.bank]
  if not region or region == register.region then
    blame(path, ("bank: there is no other region %s%s"):format(tostring(spec.bank),
      class.hint(spec.bank, layout.regions)))
  end
  local index, field = layouts.reference(layout, blame, path, "index", spec.index)
  local step = spec.step or 0
  if not registers.is_whole(step, 0, 256) then blame(path, "step: a whole number expected") end
  register.port.region, register.port.index, register.port.step = region, spec.index, step
  local slot, width, size = index.slot, register.width, region.width
  local function number(d)
    if field then return field.get(d, slot) end
    return d[slot]
  end
  local function advance(d)
    if step == 0 then return end
    local limit = 2 ^ (field and field.count or 8 * index.width)
    local value = math.floor((number(d) + step) % limit)
    d[slot] = field and field.put(d[slot], value) or value
  end
  register.read_at = function()
    return function(d)
      local value = region.read_access(d, number(d) * size, width)
      advance(d)
      return value
    end
  end
  register.write_at = function()
    return function(d, v)
      local at = number(d) * size
      advance(d)
      region.write_access(d, at, width, v)
    end
  end
end

-- ---- Binding ----

local kinds = { sequence = sequence, pair = pair, bank = bank }

--- Gives a register that is a port its guest's functions, once those of all others are made.
function M.bind(layout, register)
  local spec, found = register.spec, nil
  for kind, make in pairs(kinds) do
    if spec[kind] ~= nil then
      if found or spec.read or spec.write or spec.match or register.count or register.fifo then
        layout.blame(register.path, kind .. ": a register without hooks, count or FIFO expected")
      end
      found = kind
      register.port = { kind = kind }
      make(layout, register, spec)
    end
  end
  if found then layout.ports[register.name] = true end
end

--- Begins the sequence or pair of a register anew.
function M.start(d, name)
  local layout = rawget(d, "class").layout
  if not layout.ports[name] then
    error(("dev:start: device %s has no sequence or pair %s%s"):format(d.name, tostring(name),
      class.hint(name, layout.ports)), 2)
  end
  local at = M.new()
  if layout.by[name].port.kind == "sequence" then at.write = 1 end
  rawget(d, "ports")[name] = at
end

-- ---- State ----

local function copy_list(list)
  local made = {}
  for i, value in ipairs(list or {}) do made[i] = value end
  return made
end

local function copy(at)
  return { read = at.read or 0, write = at.write or 0, latched = copy_list(at.latched),
    pending = copy_list(at.pending) }
end

function M.save(d)
  local saved = {}
  for name, at in pairs(rawget(d, "ports")) do saved[name] = copy(at) end
  return saved
end

function M.load(d, saved)
  local ports = rawget(d, "ports")
  for name in pairs(ports) do
    if type(saved[name]) == "table" then ports[name] = copy(saved[name]) end
  end
end

return M
