-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: interrupt lines, messages, routes, controllers inside KVM.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local keep = require "lunavisor.keep"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local open = class.opener(class.class "vm")
local chips = { pic_primary = 0, pic_secondary = 1, ioapic = 2 } -- luna_chip
local LINES = 4096

-- ---- Routes ----

local known_route = { line = true, address = true, data = true, chip = true, pin = true }

-- The pin of a route to "ioapic" or "pic", whose pins 8 to 15 are the secondary's.
local function pin_of(what, chip, pin)
  if chip == "ioapic" then
    return chips.ioapic, check.whole(what .. ": pin", pin, 0, 23, 3)
  elseif chip == "pic" then
    pin = check.whole(what .. ": pin", pin, 0, 15, 3)
    return pin < 8 and chips.pic_primary or chips.pic_secondary, pin % 8
  end
  error(("%s: an address and data, or chip = 'ioapic' or 'pic' and a pin expected"):format(what), 4)
end

-- The form of raw.route.
local function route_of(index, route)
  local what = ("vm:route: entry %d"):format(index)
  route = check.options(what, route, known_route, 2)
  local line = check.whole(what .. ": line", route.line, 0, LINES - 1, 2)
  if route.address ~= nil and route.chip == nil then
    local address = check.exact(what .. ": address", route.address, 2)
    return { line, 1, address, check.whole(what .. ": data", route.data, 0, 2 ^ 32 - 1, 2), 0, 0 }
  end
  local chip, pin = pin_of(what, route.chip, route.pin)
  return { line, 0, u64.exact(0), 0, chip, pin }
end

-- ---- eventfds ----

local Irqfd = class.class "irqfd"
local mine = class.checker(Irqfd)
local line_methods = {}

--- The eventfd no longer raises the line. Doing it twice is fine.
function line_methods.close(self)
  mine(self)
  if not self.closed then
    if self.vm[1] then raw.irqfd(self.vm, self.line, self.fd, -1, 0) end
    self.vm.held[self] = nil
    self.closed = true
  end
end

class.define(Irqfd, line_methods, "line fd", "vm closed")
Irqfd.__close = line_methods.close

function Irqfd.__tostring(self)
  return ("irqfd (line %d, descriptor %d%s)"):format(self.line, self.fd,
    self.closed and ", closed" or "")
end

local function fd_of(object)
  local fd = object.fd
  if type(fd) == "function" then return fd(object) end
  return fd
end

-- A descriptor, or an object that has one: a field or method fd.
local function descriptor(what, value)
  local name = class.of(value)
  if name == "eventfd" and not value.fd then error("attempt to use a closed eventfd", 3) end
  if name and not (name == "eventfd" or name == "buffer" and raw.is_open(value)) then
    value = nil
  elseif type(value) == "table" then
    value = fd_of(value)
  end
  local number = check.whole(what, value, 0, 2 ^ 31 - 1, 2)
  return number -- not a tail call: the check counts on this frame
end

local irqfd_options = { resample = true }

return function(methods)
  --- Sets the level of an interrupt line: true or 1, false or 0. A line that is routed as a message
  --- sends it whenever it is set to 1.
  function methods.irq(self, line, level)
    open(self)
    line = check.whole("vm:irq: line", line, 0, LINES - 1)
    if type(level) == "boolean" then level = level and 1 or 0 end
    level = check.whole("vm:irq: level", level, 0, 1)
    return check.result(raw.irq(self, line, level))
  end

  --- Sends a message-signalled interrupt (SDM Vol. 3, 11.11). Whether a LAPIC took it.
  function methods.msi(self, address, data)
    open(self)
    address = check.exact("vm:msi: address", address)
    data = check.whole("vm:msi: data", data, 0, 2 ^ 32 - 1)
    return check.result(raw.msi(self, address, data))
  end

  --- Replaces the routing table. `routes` is a list of { line =, address =, data = } for messages
  --- and { line =, chip = "ioapic" or "pic", pin = } for pins of controllers in KVM.
  function methods.route(self, routes)
    open(self)
    if type(routes) ~= "table" then
      error(("vm:route: a list of routes expected, got %s"):format(type(routes)), 2)
    end
    local list = {}
    for i = 1, #routes do
      local route = route_of(i, routes[i])
      list[i] = route
    end
    return check.result(raw.route(self, list))
  end

  --- Lets an eventfd (a descriptor, or an object with one as fd) raise a line; close() of what it
  --- returns ends that. options.resample: another eventfd, that KVM signals at the end of a level
  --- interrupt.
  function methods.irqfd(self, line, eventfd, options)
    open(self)
    line = check.whole("vm:irqfd: line", line, 0, LINES - 1)
    local fd = descriptor("vm:irqfd: eventfd", eventfd)
    options = check.options("vm:irqfd", options, irqfd_options)
    local resample = -1
    if options.resample ~= nil then
      resample = descriptor("vm:irqfd: resample", options.resample)
    end
    return check.result(keep(function()
      if self[1] then raw.irqfd(self, line, fd, -1, 0) end
    end, function()
      local made = setmetatable({ vm = self, line = line, fd = fd }, Irqfd)
      -- KVM forgets an eventfd whose last descriptor is closed: what owns one is held.
      self.held[made] = { eventfd, options.resample }
      return made
    end, raw.irqfd, self, line, fd, resample, 1))
  end

  --- The state of a controller in KVM, "ioapic", "pic_primary" or "pic_secondary", as a string of
  --- 512 bytes (struct kvm_irqchip.chip); with `state`, puts one back.
  function methods.chip(self, name, state)
    open(self)
    local chip = chips[name]
    if not chip then
      error(("vm:chip: 'ioapic', 'pic_primary' or 'pic_secondary' expected, got %s")
        :format(tostring(name)), 2)
    end
    if state == nil then return check.result(raw.get_chip(self, chip)) end
    if type(state) ~= "string" or #state ~= 512 then
      error("vm:chip: a state is a string of 512 bytes", 2)
    end
    return check.result(raw.set_chip(self, chip, state))
  end

  --- The frequency of the LAPIC timers in Hz, nil without LAPICs in KVM; with `hertz`, 16e6 to 2e9,
  --- sets it, before the first vCPU. KVM counts in whole nanoseconds: what it has become is
  --- returned.
  function methods.apic_frequency(self, hertz)
    open(self)
    if hertz ~= nil then
      hertz = check.whole("vm:apic_frequency: hertz", hertz, 16e6, 2e9)
      local ok, message, code = raw.set_apic_frequency(self, hertz)
      if not ok then return check.result(nil, message, code) end
    end
    local now = raw.get_apic_frequency(self)
    return now > 0 and now or nil
  end

  --- Makes the time-stamp counters of all vCPUs show `value` (u64) at one and the same moment.
  function methods.sync_tsc(self, value)
    open(self)
    value = check.exact("vm:sync_tsc: value", value)
    return check.result(raw.sync_tsc(self, value))
  end
end
