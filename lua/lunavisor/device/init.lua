-- SPDX-License-Identifier: MIT
-- The device kit: `device "name" { registers = ... }` makes a class of devices of a table.

local class = require "lunavisor.class"
local classes = require "lunavisor.device.class"
local clocks = require "lunavisor.device.clock"
local dmas = require "lunavisor.device.dma"
local dump = require "lunavisor.device.dump"
local deferred = require "lunavisor.deferred"
local describe = deferred "lunavisor.device.describe"
local explore = deferred "lunavisor.device.explore"
local lines = require "lunavisor.device.line"
local instances = require "lunavisor.device.instance"
local state = deferred "lunavisor.device.state"
require "lunavisor.device.expose"

function instances.methods.save(...) return state.save(...) end
function instances.methods.load(...) return state.load(...) end

local device = {
  describe = function(...) return describe.describe(...) end,
  coverage = function(...) return describe.coverage(...) end,
  explore = function(...) return explore.new(...) end,
  layout = dump.layout,
  line = lines.new,
  memory = dmas.bytes,
}

--- A clock that stands until clock:advance(seconds); with `source`, one over it (clock.lua).
function device.clock(source)
  return source and clocks.new(source) or clocks.fake()
end

--- Whether something is a device of the kit, "device", or a class of them, "class"; else nil.
function device.is(value)
  if not dump.layout_of(value) then return nil end
  return rawget(value, "class") and "device" or "class"
end

class.strict("device", device)

local meta = getmetatable(device)

--- device "name" { ... }: see lua/manual/device-kit.md for what the table may have.
function meta.__call(_, name, table_given)
  if type(name) ~= "string" or not name:find "^[%w_.-]+$" then
    error(("device: a name of letters, digits, '_', '.' and '-' expected, got %s"):format(
      type(name) == "string" and ("%q"):format(name) or type(name)), 2)
  end
  if table_given ~= nil then
    error(("device %s: the table stands behind the name: device %q { ... }"):format(name, name), 2)
  end
  local info = debug.getinfo(2, "Sl")
  return function(spec)
    if type(spec) ~= "table" then
      error(("device %s: a table expected, got %s"):format(name, class.describe(spec)), 2)
    end
    return classes.class(info, name, spec)
  end
end

return device
