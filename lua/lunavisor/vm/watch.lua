-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: seeing what the guest does with devices, and what it did where
-- nobody was.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local traps = require "lunavisor.exit.trap"
local unowned = require "lunavisor.exit.unowned"

local open = class.opener(class.class "vm")

local WRITE = 2 -- luna_access

local Watch = class.class "watch"
local mine = class.checker(Watch)
local watch_methods = {}

local function name_of(device)
  return type(device) == "table" and rawget(device, "name") or nil
end

-- Whether a watch is for a trap: for all, by the name of the device (a region's is "name.region"),
-- or for the device itself.
local function concerns(watch, trap)
  local wanted, name = watch.wanted, name_of(trap.device)
  if wanted == false or wanted == trap.device then return true end
  if type(trap.device) == "table" and rawget(trap.device, "owner") == wanted then return true end
  return name ~= nil and (name == wanted or name:match "^[^.]*" == wanted)
end

local function tell(list, trap, offset, size, access, value)
  local about = { device = trap.device, name = name_of(trap.device), kind = trap.kind,
    address = trap.first + offset, offset = offset, size = size,
    access = access == WRITE and "w" or "r", value = value }
  for i = 1, #list do list[i].fn(about) end
end

-- Makes what answers for a trap and tells its watches; nil where there are none.
local function watchers_of(watches)
  return function(trap, answer)
    local list = {}
    for _, watch in ipairs(watches) do
      if concerns(watch, trap) then list[#list + 1] = watch end
    end
    if #list == 0 then return nil end
    return function(cpu, offset, size, value, access)
      local given = answer(cpu, offset, size, value, access)
      tell(list, trap, offset, size, access, access == WRITE and value or given)
      return given
    end
  end
end

local function install(vm, watches)
  vm.watchers = #watches > 0 and watchers_of(watches) or false
  for _, trap in pairs(vm.traps) do traps.install(trap) end
end

--- Nothing more is told. Doing it twice is fine.
function watch_methods.close(self)
  mine(self)
  for i, watch in ipairs(self.list) do
    if watch == self then
      table.remove(self.list, i)
      install(self.vm, self.list)
      return
    end
  end
end

class.define(Watch, watch_methods, "fn wanted", "vm list")
Watch.__close = watch_methods.close

return function(methods)
  --- Calls fn(access) behind every access of the guest to a device, with its answer; with a name
  --- or device, to that alone. access: device, name, kind ("pio", "mmio", "msr"), address, offset,
  --- size, access ("r", "w"), value (nil for blocks of string I/O). close() of what is returned
  --- ends it. Where nothing is watched it costs nothing.
  function methods.watch(self, wanted, fn)
    open(self)
    if fn == nil then wanted, fn = false, wanted end
    check.callable("vm:watch", fn)
    if wanted and type(wanted) ~= "string" and type(wanted) ~= "table" then
      error(("vm:watch: the name of a device or a device expected, got %s"):format(
        class.describe(wanted)), 2)
    end
    local list = self.watches
    local watch = setmetatable({ vm = self, list = list, fn = fn, wanted = wanted }, Watch)
    list[#list + 1] = watch
    install(self, list)
    return watch
  end

  --- What the guest did at ports and addresses that no device and no handler took: a list of
  --- { kind = "pio" or "mmio", address =, size =, access =, count =, rip = }, the most frequent
  --- first.
  function methods.unknown(self)
    open(self)
    return unowned.list(self.unowned)
  end
end
