-- SPDX-License-Identifier: MIT
-- The declared fields of a device that is recorded: what a script sets is noted at once, what it
-- changes within a table, and the triggers of FIFOs, before the device's next event.

local events = require "lunavisor.device.event"
local instances = require "lunavisor.device.instance"
local plain = require "lunavisor.text.plain"
local sorted = require "lunavisor.text.sorted"

local copy, effect, is_inside = instances.copy, events.effect, events.is_inside

local M = {}

-- The number of the device in whose event this is.
local function above_of(self)
  local above = self.depth > 0 and self.inside[self.depth]
  return above and above.number or 0
end

local function note(self, about, name, value)
  effect(self, ("v%d %d %s %s"):format(about.number, above_of(self), name,
    plain.write(value) or "?"))
end

local function same(one, other)
  if type(one) ~= "table" or type(other) ~= "table" then return one == other end
  for key, value in pairs(one) do if not same(value, other[key]) then return false end end
  for key in pairs(other) do if one[key] == nil then return false end end
  return true
end

-- The fields are taken out of the device, so that its metatable is asked for them.
local function take_out(dev, names)
  local values = {}
  for name in pairs(names) do
    values[name] = rawget(dev, name)
    rawset(dev, name, nil)
  end
  return values
end

local function metatable(before, names, values, changed)
  local made = {}
  for key, value in pairs(before) do made[key] = value end
  local index, newindex = before.__index, before.__newindex
  function made.__index(d, key)
    if names[key] ~= nil then return values[key] end
    return index(d, key)
  end
  function made.__newindex(d, key, value)
    if names[key] == nil then return newindex(d, key, value) end
    values[key] = value
    changed(key, value)
  end
  return made
end

-- A function that notes the triggers that have changed.
local function triggers(self, about, dev, layout)
  local fifos, known = {}, {}
  for _, register in ipairs(layout.registers) do
    if register.fifo and not register.count then fifos[#fifos + 1] = register end
  end
  return function(silent)
    for i = 1, #fifos do
      local register = fifos[i]
      local now = dev[register.slot].trigger
      if now ~= known[register] then
        known[register] = now
        if not silent then
          effect(self, ("s%d %d %s trigger %x"):format(about.number, above_of(self), register.name,
            now))
        end
      end
    end
  end
end

--- Notes what a script does to the declared fields of a device; returns a function that ends it.
function M.add(self, about, dev, layout)
  local names, known = layout.spec.state or {}, {}
  local look_at_triggers = triggers(self, about, dev, layout)
  local before, values, order = getmetatable(dev), take_out(dev, names), sorted(names)
  setmetatable(dev, metatable(before, names, values, function(name, value)
    if is_inside(self, about) then return end
    note(self, about, name, value)
    known[name] = type(value) == "table" and copy(value) or nil
  end))
  --- Notes what has changed within tables since the device's last event.
  function about.look(silent)
    look_at_triggers(silent)
    for _, name in ipairs(order) do
      local value = values[name]
      if type(value) == "table" and not same(value, known[name]) then
        known[name] = copy(value)
        if not silent then note(self, about, name, value) end
      end
    end
  end
  about.look(true)
  return function()
    about.look = nil
    setmetatable(dev, before)
    for name, value in pairs(values) do rawset(dev, name, value) end
  end
end

return M
