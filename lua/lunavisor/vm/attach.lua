-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: devices of the kit: where they are, what their lines drive, their
-- time and memory.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local clocks = require "lunavisor.device.clock"
local device = require "lunavisor.device"
local dump = require "lunavisor.device.dump"
local expose = require "lunavisor.device.expose"
local hidden = require "lunavisor.vm.hidden"
local instances = require "lunavisor.device.instance"
local lines = require "lunavisor.device.line"
local raw = require "lunavisor.binding.backend"
local record = require "lunavisor.vm.record"
local timers = require "lunavisor.vm.timer"
local trace = require "lunavisor.exit.trace"
local traps = require "lunavisor.exit.trap"
local views = require "lunavisor.vm.view"

local unpack = rawget(table, "unpack") or unpack

local open = class.opener(class.class "vm")
local M = {}

-- ---- Time and memory ----

local Real = {} -- a source of device/clock.lua: the VM's timers
Real.__index = Real

function Real.time() return raw.clock() end

function Real.arm(self, moment)
  if self.timer then self.timer:close() end
  self.timer = moment and timers.new(self.vm, math.max(0, moment - raw.clock()), function()
    self.timer = nil
    self.clock:fire()
  end) or nil
end

local function real_clock(vm)
  local source = setmetatable({ vm = vm }, Real)
  source.clock = clocks.new(source)
  return source.clock
end

local Memory = {} -- of device/dma.lua: an address space
Memory.__index = Memory
function Memory.read(self, gpa, size) return self.space:try_read(gpa, size) end
function Memory.write(self, gpa, data) return self.space:try_write(gpa, data) end

-- ---- Lines ----

-- A line that sets an interrupt line of the VM.
local function line_of(vm, number)
  local line = vm.attached.lines[number]
  if not line then
    line = lines.new("vm line " .. number, function(level)
      local ok, message = vm:irq(number, level)
      if not ok then error(message, 0) end
    end)
    vm.attached.lines[number] = line
  end
  return line
end

-- ---- Attaching ----

local KINDS = { mmio = "gpa", pio = "port" }
local OPTIONS = { mmio = true, pio = true, name = true, space = true }

--- What answers for a region: the device itself where that is its only one, without a detour.
function M.server(dev, region)
  return #dump.layout_of(dev).regions == 1 and dev or region
end

-- The regions that the options place: a list of { kind, first, region }.
local function places_of(dev, options)
  local list, layout = {}, dump.layout_of(dev)
  for kind in pairs(KINDS) do
    local given = options[kind]
    if type(given) == "number" then
      if #layout.regions > 1 then
        error(("vm:attach: %s has several regions: %s = { region = address } expected"):format(
          dev.name, kind), 3)
      end
      given = { [layout.regions[1].name] = given }
    elseif given ~= nil and type(given) ~= "table" then
      error(("vm:attach: %s: an address, or addresses by region, expected, got %s"):format(kind,
        class.describe(given)), 3)
    end
    for name, first in pairs(given or {}) do
      local region = rawget(dev.regions, name)
      if not region then
        error(("vm:attach: %s has no region %s%s"):format(dev.name, tostring(name),
          class.hint(name, dev.regions)), 3)
      end
      first = check.whole(("vm:attach: %s of %s"):format(kind, name), first, 0, nil, 2)
      list[#list + 1] = { kind = kind, first = first, region = region, key = name,
        device = M.server(dev, region) }
    end
  end
  table.sort(list, function(a, b) return a.first < b.first end)
  return list
end

-- Refuses a place that another device has, with both by name, or that never comes to the device.
local function check_free(vm, place)
  local last = place.first + place.region.size - 1
  for _, trap in pairs(vm.traps) do
    if trap.kind == place.kind and trap.first <= last
      and place.first <= trap.first + trap.length - 1 then
      error(("vm:attach: %s at %s 0x%x..0x%x overlaps %s"):format(place.region.name,
        KINDS[place.kind], place.first, last, trace.device(trap)), 3)
    end
  end
  local why = hidden.why(vm, place.kind, place.first, place.region.size, place.region)
  if why then
    error(("vm:attach: %s at %s 0x%x..0x%x: %s"):format(place.region.name, KINDS[place.kind],
      place.first, last, why), 3)
  end
end

-- What each line of the device is to drive: a list of { line, target }.
local function targets_of(vm, dev, options)
  local list, names, known = {}, {}, {}
  for name in pairs(OPTIONS) do known[name] = true end
  for _, about in ipairs(dump.layout_of(dev).lines) do
    names[about.name], known[about.name] = true, true
  end
  for key, target in pairs(options) do
    if names[key] then
      if type(target) == "number" then
        target = line_of(vm, check.whole("vm:attach: " .. key, target, 0, 4095, 2))
      end
      list[#list + 1] = { dev[key], target }
    elseif not OPTIONS[key] then
      error(("vm:attach: unknown option '%s'%s; options are mmio, pio, name, space and the lines "
        .. "of the device"):format(tostring(key), class.hint(key, known)), 3)
    end
  end
  return list
end

local function claim(vm, entry, place)
  local trap, message, code = traps.add(vm, place.kind, place.first, place.region.size,
    place.device)
  if not trap then return nil, message, code end
  entry.claims[#entry.claims + 1] = { trap = trap, place = place }
  if place.kind == "mmio" then
    expose.enter(place.region, vm.default, place.first)
  end
  return true
end

local function release(vm, entry)
  for i = #entry.claims, 1, -1 do
    local place = entry.claims[i].place
    expose.leave(place.region, vm.default, place.first)
    entry.claims[i].trap:close()
    entry.claims[i] = nil
  end
end

--- What a VM has of a device that is attached, and under which name; nil.
function M.entry(vm, dev)
  for name, entry in pairs(vm.attached.entries) do
    if entry.dev == dev then return entry, name end
  end
  return nil
end

--- An instance of a class, or the instance itself.
function M.instance(what, value)
  local is = device.is(value)
  if is == "class" then return value() end
  if is ~= "device" then
    error(("%s: a device of the kit or a class of them expected, got %s"):format(what,
      class.describe(value)), 3)
  end
  return value
end

--- Calls what the table has for a device that comes to a VM, or leaves it (vm is false).
function M.tell(dev, vm)
  local attached = rawget(dev, "class").layout.spec.attached
  if attached then attached(dev, vm) end
end

--- Gives a device the VM's time and memory where it has none of its own.
function M.settle(vm, dev, space)
  if not rawget(dev, "timed") then dev:use_clock(vm.clock) end
  if not dev.dma.memory then
    dev.dma.memory = setmetatable({ space = space or vm.default }, Memory)
  end
  rawset(dev, "vm", vm)
  M.tell(dev, vm)
end

-- ---- Methods ----

--- Adds the methods.
function M.add(methods)
  --- Gives a device of the kit (an instance or a class) its place in the VM. options: mmio, pio:
  --- the address of its region, or { region = address }; for each line of the device what it
  --- drives: the number of an interrupt line (vm:irq), an input, a line or a function; name: what
  --- it is called from then on, and vm.devices has it by, its own name where nil; space: of its
  --- DMA, space 0 where nil. It goes by vm.clock unless it was made with a clock. Places that
  --- overlap raise, and those that memory hides. Returns the device; nil, message, code where the
  --- host refuses.
  function methods.attach(self, dev, options)
    open(self)
    dev = M.instance("vm:attach", dev)
    options = options or {}
    if type(options) ~= "table" then
      error(("vm:attach: a table of options expected, as { mmio = 0xd0000000, irq = 5 }, got %s")
        :format(class.describe(options)), 2)
    end
    local name = check.name("vm:attach: name", options.name or dev.name, "a name")
    if self.attached.entries[name] then
      error(("vm:attach: there is a device %s already; give this one another name"):format(name), 2)
    elseif M.entry(self, dev) then
      error(("vm:attach: %s is attached already"):format(name), 2)
    end
    local places, targets = places_of(dev, options), targets_of(self, dev, options)
    for _, place in ipairs(places) do check_free(self, place) end
    local entry = { dev = dev, claims = {} }
    for _, place in ipairs(places) do
      local ok, message, code = claim(self, entry, place)
      if not ok then
        release(self, entry)
        return check.result(nil, message, code)
      end
    end
    if name ~= dev.name then instances.rename(dev, name) end
    M.settle(self, dev, options.space)
    self.attached.entries[name] = entry
    for _, pair in ipairs(targets) do pair[1]:connect(pair[2]) end
    if self.recording then record.add(self, name, entry) end
    if self.meter then self.meter:attach(dev, name) end
    return dev
  end

  --- Takes a device out of the VM: its ports and addresses are nobody's, its lines drive nothing.
  function methods.detach(self, dev)
    open(self)
    local entry, name = M.entry(self, dev)
    if not entry then error("vm:detach: that device is not attached to this VM", 2) end
    release(self, entry)
    for _, about in ipairs(dump.layout_of(dev).lines) do
      local line = dev[about.name]
      for _, target in ipairs { unpack(line.targets) } do line:disconnect(target) end
    end
    self.attached.entries[name] = nil
    M.tell(dev, false)
    rawset(dev, "vm", false)
  end

  --- The line that sets an interrupt line of the VM, for line:connect: up while one of those that
  --- drive it is.
  function methods.line(self, number)
    open(self)
    number = check.whole("vm:line", number, 0, 4095)
    return line_of(self, number)
  end
end

--- Gives a new VM its clock, unless it has one, and the view of its devices.
function M.begin(vm)
  vm.clock = vm.clock or real_clock(vm)
  vm.devices = views.new(vm)
end

return M
