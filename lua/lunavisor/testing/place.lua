-- SPDX-License-Identifier: MIT
-- Where the registers of a device are, by name: "STATUS", "COEFF[2]", "STATUS.busy", or an offset.

local class = require "lunavisor.class"
local device = require "lunavisor.device"

local M = {}

--- The places of a device of the kit; nil for one made by hand, which has offsets alone.
function M.new(dev)
  if not device.is(dev) then return nil end
  local layout = device.layout(dev)
  local places = { layout = layout, registers = {}, fields = {}, names = {} }
  for _, register in ipairs(layout.registers) do
    places.registers[register.name] = register
    places.names[register.name] = true
    places.fields[register.name] = {}
    for _, field in ipairs(register.fields) do places.fields[register.name][field.name] = field end
  end
  return places
end

local function find_field(places, what, register, name)
  if name == "" then return nil end
  local field = places.fields[register.name][name]
  if not field then
    error(("%s: register %s has no field %s%s"):format(what, register.name, name,
      class.hint(name, places.fields[register.name])), 4)
  end
  return field
end

local function index_of(what, register, index)
  if not register.count then
    if index then error(("%s: %s is no array"):format(what, register.name), 4) end
    return 0
  end
  if not index then return 0 end
  if index >= register.count then
    error(("%s: %s has the elements 0 to %d"):format(what, register.name, register.count - 1), 4)
  end
  return index
end

--- { region =, offset =, width =, register =, field = } of a name or an offset in the first region;
--- an offset has no width. Raises two calls above where there is no such place.
function M.find(places, what, where)
  if type(where) == "number" then
    if where < 0 or where % 1 ~= 0 then
      error(("%s: an offset or a register's name expected, got %s"):format(what, where), 3)
    end
    return { offset = where }
  elseif type(where) ~= "string" then
    error(("%s: an offset or a register's name expected, got %s"):format(what,
      class.describe(where)), 3)
  elseif not places then
    error(("%s: a device made by hand has no register %s; give an offset"):format(what, where), 3)
  end
  local name, index, field = where:match "^([%w_]+)%[?(%d*)%]?%.?([%w_]*)$"
  local register = places.registers[name]
  if not register then
    error(("%s: device %s has no register %s%s"):format(what, places.layout.name, where,
      class.hint(name or where, places.names)), 3)
  end
  index = index_of(what, register, tonumber(index))
  return { region = register.region, register = register, width = register.width,
    field = find_field(places, what, register, field),
    offset = register.at + index * (register.stride or 0) }
end

return M
