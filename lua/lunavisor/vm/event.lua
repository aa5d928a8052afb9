-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: eventfds, coalesced writes, traps in the core, MSR exits.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local keep = require "lunavisor.keep"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"
local traps = require "lunavisor.exit.trap"

local open = class.opener(class.class "vm")
local unpack = table.unpack or unpack

local PIO, MMIO = 0, 1       -- luna_trap_kind
local MATCH, ANY_SIZE = 1, 2 -- LUNA_EVENT_*

-- ---- Eventfds ----

local Eventfd = class.class "eventfd"
local mine = class.checker(Eventfd)
local event_methods = {}

local event_options = {
  port = true, gpa = true, size = true, match = true, any_size = true, fd = true,
}

-- The port or gpa, and its kind.
local function place_of(options)
  if (options.port == nil) == (options.gpa == nil) then
    error("vm:eventfd: a port or a gpa expected, one of both", 3)
  end
  if options.port ~= nil then
    return PIO, (check.whole("vm:eventfd: port", options.port, 0, 0xffff, 2))
  end
  return MMIO, (check.whole("vm:eventfd: gpa", options.gpa, 0, nil, 2))
end

-- Size, flags and value: which writes.
local function writes_of(options)
  if check.flag("vm:eventfd: any_size", options.any_size, 2) then
    if options.size ~= nil or options.match ~= nil then
      error("vm:eventfd: any_size goes with neither size nor match", 3)
    end
    return 0, ANY_SIZE, 0
  end
  local size = check.whole("vm:eventfd: size", options.size, 1, 8, 2)
  if options.match == nil then return size, 0, 0 end
  return size, MATCH, check.exact("vm:eventfd: match", options.match, 2)
end

local function usable(self, level)
  mine(self, level)
  if self.closed or not self.vm[1] then error("attempt to use a closed eventfd", level + 1) end
end

--- How many of the writes the guest has made since the last call.
function event_methods.read(self)
  usable(self, 2)
  return check.result(raw.eventfd_read(self.fd))
end

--- Adds `count` (1 where nil) to the counter, as writes of the guest do: wakes who polls .fd, and
--- raises the line of vm:irqfd.
function event_methods.write(self, count)
  usable(self, 2)
  count = check.whole("eventfd:write: count", count == nil and 1 or count, 1, 2 ^ 53)
  return check.result(raw.eventfd_write(self.fd, count))
end

--- The writes leave the guest again. A descriptor that the VM made is closed. Doing it twice is
--- fine.
function event_methods.close(self)
  mine(self)
  if self.closed then return end
  if self.vm[1] then raw.eventfd_remove(self.vm, unpack(self.said)) end
  self.vm.held[self] = nil
  rawset(self, "closed", true)
end

function Eventfd.__index(self, key)
  if key == "fd" and not self.closed and self.vm[1] then return self.said[6] end
  if event_methods[key] then return event_methods[key] end
  if key ~= "closed" and key ~= "fd" and not class.is_probe(key) then
    class.missing(Eventfd, key, nil, 2)
  end
end

class.announce(Eventfd, event_methods, "fd")

Eventfd.__close = event_methods.close

function Eventfd.__tostring(self)
  local kind, address, size, flags, value = unpack(self.said)
  local which = size == 0 and "any size" or ("%d byte%s"):format(size, size == 1 and "" or "s")
  return ("eventfd %s (%s 0x%x, %s%s)"):format(self.fd or "(closed)",
    kind == PIO and "port" or "gpa", address, which,
    flags == MATCH and ", value " .. u64.hex(value) or "")
end

return function(methods)
  --- Lets the guest's writes to a port or gpa count up an eventfd, in every space, without leaving
  --- the guest:
  ---   port or gpa   the address                  match      only writes of this value
  ---   size          of the write, in bytes       any_size   true: writes of any size
  ---   fd            an eventfd of the script's; nil: the VM makes one, .fd, that does not block
  --- Returns an object with .fd, read() and close(); it is closed with the VM. nil, message, code
  --- where KVM refuses.
  function methods.eventfd(self, options)
    open(self)
    options = check.options("vm:eventfd", options, event_options)
    local kind, address = place_of(options)
    local size, flags, value = writes_of(options)
    local fd = options.fd == nil and -1 or check.whole("vm:eventfd: fd", options.fd, 0, 2 ^ 31 - 1)
    return check.result(keep(function(made)
      if self[1] then raw.eventfd_remove(self, kind, address, size, flags, value, made) end
    end, function(made)
      local object = setmetatable({ vm = self,
        said = { kind, address, size, flags, value, made } }, Eventfd)
      self.held[object] = true
      return object
    end, check.again, raw.eventfd_add, self, kind, address, size, flags, value, fd))
  end

  --- Lets KVM collect the writes to a trap of ports or addresses; its device gets them, in order,
  --- before the next exit that comes for another reason. For devices that do not mind to hear late.
  --- nil, message, code where this host's KVM cannot.
  function methods.coalesce(self, trap)
    open(self)
    check.object("vm:coalesce: trap", trap, traps.class)
    if trap.closed then error("attempt to use a closed trap", 2) end
    if trap.vm ~= self then error("vm:coalesce: the trap belongs to another VM", 2) end
    return check.result(raw.coalesce(self, trap.id))
  end

  --- Gives `length` MSRs from `index` on, a number or name (one where left out), to a device:
  ---   read(device, offset, 8) -> u64     and/or     write(device, offset, 8, u64)
  --- offset counts registers from `index`. A function that returns "refuse", or that is missing,
  --- gives the guest a #GP. Or { memory = buffer, offset = n }: 8 bytes a register. Returns a trap.
  --- nil, message, code for MSRs that KVM does not filter (0x800 to 0x8ff) and where its filter is
  --- full.
  function methods.msr(self, index, length, device)
    open(self)
    if device == nil then length, device = 1, length end
    if type(index) == "string" then
      check.name("vm:msr: index", index, "an MSR's name")
      local found, message = raw.msr_find(index)
      if not found then error("vm:msr: " .. message, 2) end
      index = found
    end
    index = check.whole("vm:msr: index", index, 0, 2 ^ 32 - 1)
    length = check.whole("vm:msr: length", length, 0)
    traps.check("vm:msr", device)
    return check.result(traps.add(self, "msr", index, length, device))
  end
end
