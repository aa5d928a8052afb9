-- SPDX-License-Identifier: MIT
-- A VM: its address spaces, the devices on its ports and addresses, its vCPUs.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local map = require "lunavisor.map"
local runner = require "lunavisor.runner"
local spaces = require "lunavisor.space"
local timers = require "lunavisor.timer"
local vcpus = require "lunavisor.vcpu"

local VM = { __name = "vm" }
local methods = {}
local Trap = { __name = "trap" }

local PIO, MMIO = 0, 1 -- luna_trap_kind

local known_options = { dirty = true, dirty_ring = true }

local function ring_of(options)
  if options.dirty ~= nil and options.dirty ~= "ring" and options.dirty ~= "bitmap" then
    error(("luna.vm: dirty: 'bitmap' or 'ring' expected, got %s")
      :format(tostring(options.dirty)), 3)
  end
  if options.dirty ~= "ring" then return 0 end
  local entries = check.whole("luna.vm: dirty_ring", options.dirty_ring or 4096, 1, 2 ^ 31, 2)
  return entries -- not a tail call: the check counts on this frame
end

--- Makes a VM with space 0 (vm.default), no memory and no vCPU. options.dirty: how written pages
--- are followed (space:dirty), "bitmap" where nil, or "ring", which is better where few pages of
--- much memory are written; options.dirty_ring: its entries for each vCPU, a power of two, 4096
--- where nil. nil, message, code where this host has no usable KVM; luna.probe() tells more.
local function new(options)
  options = check.options("luna.vm", options, known_options)
  local handle, message, code = raw.vm_create(ring_of(options))
  if not handle then return check.result(nil, message, code) end
  local self = setmetatable({
    handle,
    devices = {},                                 -- by trap number: what the run loop looks up
    vcpus = setmetatable({}, { __mode = "k" }),   -- a set
    spaces = {},                                  -- by number
    started = {},                                 -- by number: vCPUs that have a thread
    timers = {},                                  -- a set
    next_timer = nil,                             -- the moment of the earliest
    runner = runner.new(),                        -- of vm:run and vm:poll
    stopping = false,                             -- { value } once vm:stop was called
    polled = false,                               -- whether vm:fd was asked for
  }, VM)
  self.default = spaces.new(self, 0)
  self.spaces[0] = self.default
  return self
end

--- Closes the VM and its vCPUs; buffers are not closed. Doing it twice is fine.
function methods.close(self)
  timers.close(self)
  for cpu in pairs(self.vcpus) do cpu:close() end
  raw.close(self)
end

--- A further guest-physical address space of the VM: a map of its own, over the same buffers.
--- nil, message, code where the host refuses.
function methods.space(self)
  check.open(self)
  local id, message, code = raw.space_create(self)
  if not id then return check.result(nil, message, code) end
  local space = spaces.new(self, id)
  self.spaces[id] = space
  return space
end

-- The space object for an object or a number.
local function space_of(self, space, what)
  if getmetatable(space) == spaces.class and space.vm == self then
    if space.closed then error("attempt to use a closed space", 3) end
    return space
  end
  local id = check.whole(what .. ": space", space, 0, 2 ^ 32 - 1, 2)
  if not self.spaces[id] then
    error(("%s: there is no space %d in this VM"):format(what, id), 3)
  end
  return self.spaces[id]
end

--- space:map, space:unmap and space:protect by a space's number (0 is the default one) or object,
--- as Apple's hv_vm_map_space and its neighbours take it.
function methods.map_space(self, space, buffer, ...)
  check.open(self)
  space = space_of(self, space, "vm:map_space")
  local gpa, size, rights, offset = map.map("vm:map_space", 2, buffer, ...)
  return check.result(raw.map(self, space.id, buffer, offset, gpa, size, rights))
end

function methods.unmap_space(self, space, gpa, size)
  check.open(self)
  space = space_of(self, space, "vm:unmap_space")
  gpa, size = map.range("vm:unmap_space", 2, gpa, size)
  return check.result(raw.unmap(self, space.id, gpa, size))
end

function methods.protect_space(self, space, gpa, size, rights, options)
  check.open(self)
  space = space_of(self, space, "vm:protect_space")
  gpa, size, rights = map.protect("vm:protect_space", 2, gpa, size, rights, options)
  return check.result(raw.protect(self, space.id, gpa, size, rights))
end

local function check_device(what, device)
  if type(device) ~= "table" then
    error(("%s: a device expected (a table with read and/or write), got %s")
      :format(what, type(device)), 3)
  end
  if device.read == nil and device.write == nil then
    error(("%s: the device has neither a read nor a write function"):format(what), 3)
  end
  if device.read ~= nil then check.callable(what .. ": device.read", device.read, 2) end
  if device.write ~= nil then check.callable(what .. ": device.write", device.write, 2) end
end

local function add_trap(self, kind, first, length, device)
  local id, message, code = raw.trap(self, kind, first, length)
  if not id then return nil, message, code end
  self.devices[id] = device
  return setmetatable({ vm = self, id = id, kind = kind == PIO and "pio" or "mmio", first = first,
    length = length, device = device }, Trap)
end

--- Gives I/O ports [port, port + length) to a device: a table with
---   read(device, offset, size) -> value     and/or     write(device, offset, size, value)
--- offset counts from `port`, size is 1, 2 or 4. Returns a trap, whose close() gives the ports
--- back.
function methods.pio(self, port, length, device)
  check.open(self)
  port = check.whole("vm:pio: port", port, 0)
  length = check.whole("vm:pio: length", length, 0)
  check_device("vm:pio", device)
  return check.result(add_trap(self, PIO, port, length, device))
end

--- The same for guest-physical addresses [gpa, gpa + length), in every space; size is 1 to 8, and
--- values of more than 4 bytes are u64. Memory goes before a device: what a region allows never
--- reaches it.
function methods.mmio(self, gpa, length, device)
  check.open(self)
  gpa = check.whole("vm:mmio: gpa", gpa, 0)
  length = check.size("vm:mmio: length", length)
  check_device("vm:mmio", device)
  return check.result(add_trap(self, MMIO, gpa, length, device))
end

--- Makes a vCPU; see vcpu.lua for the options.
function methods.vcpu(self, options)
  check.open(self)
  return vcpus.new(self, options) -- a tail call, so that its checks blame the caller
end

-- The further subjects, one file each: functions that add methods.
for _, part in ipairs { "event", "interrupt", "thread" } do
  require("lunavisor.vm_" .. part)(methods)
end

VM.__index = methods
VM.__close = methods.close

function VM.__tostring(self)
  if not self[1] then return "vm (closed)" end
  local cpus, traps = 0, 0
  for _ in pairs(self.vcpus) do cpus = cpus + 1 end
  for _ in pairs(self.devices) do traps = traps + 1 end
  return ("vm (%d vcpus, %d traps)\n%s"):format(cpus, traps, tostring(self.default))
end

Trap.__index = {}

--- Gives the range back; a device may close its own trap. Doing it twice is fine.
function Trap.__index.close(self)
  local vm = self.vm
  if vm.devices[self.id] == self.device and not self.closed then
    self.closed = true
    vm.devices[self.id] = nil
    if vm[1] then raw.untrap(vm, self.id) end
  end
end

Trap.__close = Trap.__index.close

function Trap.__tostring(self)
  return ("trap %d (%s 0x%x..0x%x%s)"):format(self.id, self.kind, self.first,
    self.first + self.length - 1, self.closed and ", closed" or "")
end

return { new = new, class = VM }
