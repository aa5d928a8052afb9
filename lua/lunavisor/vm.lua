-- SPDX-License-Identifier: MIT
-- A VM: its address spaces, the devices on its ports and addresses, its vCPUs.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local buffers = require "lunavisor.buffer"
local spaces = require "lunavisor.space"
local vcpus = require "lunavisor.vcpu"

local VM = { __name = "vm" }
local methods = {}
local Trap = { __name = "trap" }

local PIO, MMIO = 0, 1 -- luna_trap_kind

--- Makes a VM with space 0 (vm.default), no memory and no vCPU. nil, message, code where this host
--- has no usable KVM; luna.probe() tells more.
local function new(options)
  check.options("luna.vm", options, {})
  local handle, message, code = raw.vm_create()
  if not handle then return check.result(nil, message, code) end
  local self = setmetatable({
    handle,
    devices = {},                                 -- by trap number: what the run loop looks up
    vcpus = setmetatable({}, { __mode = "k" }),   -- a set
  }, VM)
  self.default = spaces.new(self, 0)
  return self
end

--- Closes the VM and its vCPUs; buffers are not closed. Doing it twice is fine.
function methods.close(self)
  for cpu in pairs(self.vcpus) do cpu:close() end
  raw.close(self)
end

local function space_id(self, space)
  if getmetatable(space) == spaces.class and space.vm == self then return space.id end
  return check.whole("vm: space", space, 0, 2 ^ 32 - 1, 2)
end

--- Maps `size` bytes of `buffer` from `offset` at guest-physical address `gpa` of a space (a space
--- object or its number; 0 is the default one). Offset, gpa and size are multiples of 4096.
--- `rights` is "rwx", "r-x" ...; "---" maps a range that every access faults in.
--- vm:map_space(space, buffer, gpa, size, rights) maps from offset 0. Returns true; nil, message,
--- code where KVM has no slot or cannot do it. Mistakes (unaligned, overlapping, beyond the buffer)
--- raise.
function methods.map_space(self, space, buffer, offset, gpa, size, rights)
  if rights == nil then offset, gpa, size, rights = 0, offset, gpa, size end
  space = space_id(self, space)
  check.object("vm:map_space: buffer", buffer, buffers.class)
  offset = check.whole("vm:map_space: offset", offset, 0)
  gpa = check.whole("vm:map_space: gpa", gpa, 0)
  size = check.size("vm:map_space: size", size)
  rights = check.rights("vm:map_space: rights", rights)
  return check.result(raw.map(self, space, buffer, offset, gpa, size, rights))
end

--- Unmaps the pages of [gpa, gpa + size) of a space, all of which must be mapped.
function methods.unmap_space(self, space, gpa, size)
  space = space_id(self, space)
  gpa = check.whole("vm:unmap_space: gpa", gpa, 0)
  size = check.size("vm:unmap_space: size", size)
  return check.result(raw.unmap(self, space, gpa, size))
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
  port = check.whole("vm:pio: port", port, 0)
  length = check.whole("vm:pio: length", length, 0)
  check_device("vm:pio", device)
  return check.result(add_trap(self, PIO, port, length, device))
end

--- The same for guest-physical addresses [gpa, gpa + length), in every space; size is 1 to 8, and
--- values of more than 4 bytes are u64. Memory goes before a device: what a region allows never
--- reaches it.
function methods.mmio(self, gpa, length, device)
  gpa = check.whole("vm:mmio: gpa", gpa, 0)
  length = check.size("vm:mmio: length", length)
  check_device("vm:mmio", device)
  return check.result(add_trap(self, MMIO, gpa, length, device))
end

--- Makes a vCPU; see vcpu.lua for the options.
function methods.vcpu(self, options)
  return vcpus.new(self, options)
end

VM.__index = methods
VM.__close = methods.close

function VM.__tostring(self)
  if not raw.is_open(self) then return "vm (closed)" end
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
    if raw.is_open(vm) then raw.untrap(vm, self.id) end
  end
end

Trap.__close = Trap.__index.close

function Trap.__tostring(self)
  return ("trap %d (%s 0x%x..0x%x%s)"):format(self.id, self.kind, self.first,
    self.first + self.length - 1, self.closed and ", closed" or "")
end

return { new = new, class = VM }
