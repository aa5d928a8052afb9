-- SPDX-License-Identifier: MIT
-- A VM: its address spaces, the devices on its ports and addresses, its vCPUs.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local keep = require "lunavisor.keep"
local attach = require "lunavisor.vm.attach"
local class = require "lunavisor.class"
local hidden = require "lunavisor.vm.hidden"
local clocks = require "lunavisor.device.clock"
local map = require "lunavisor.memory.map"
local meters = require "lunavisor.vm.meter"
local accels = require "lunavisor.vm.accel"
local record = require "lunavisor.vm.record"
local runner = require "lunavisor.vm.runner"
local spaces = require "lunavisor.memory.space"
local unowned = require "lunavisor.exit.unowned"
local timers = require "lunavisor.vm.timer"
local traps = require "lunavisor.exit.trap"
local symbols = require "lunavisor.text.symbols"
local vcpus = require "lunavisor.vcpu.vcpu"

local VM = class.class "vm"
local mine, open = class.checker(VM), class.opener(VM)
local methods = {}

local known_options = {
  dirty = true, dirty_ring = true, irqchip = true, pit = true, apic_frequency = true,
  unknown_msrs = true, hypercalls = true, accel = true, unknown = true, clock = true,
}
local irqchips = { none = 0, split = 1, kernel = 2 } -- luna_irqchip

local function ring_of(options)
  if options.dirty ~= nil and options.dirty ~= "ring" and options.dirty ~= "bitmap" then
    error(("luna.vm: dirty: 'bitmap' or 'ring' expected, got %s")
      :format(tostring(options.dirty)), 3)
  end
  if options.dirty ~= "ring" then return 0 end
  local entries = check.whole("luna.vm: dirty_ring", options.dirty_ring or 4096, 1, 2 ^ 31, 2)
  return entries -- not a tail call: the check counts on this frame
end

local function unknown_msrs_of(options)
  local what = options.unknown_msrs
  if what ~= nil and what ~= "exit" and what ~= "fault" then
    error(("luna.vm: unknown_msrs: 'exit' or 'fault' expected, got %s"):format(tostring(what)), 3)
  end
  return what == "exit" and 1 or 0
end

local function irqchip_of(options)
  local number = irqchips[options.irqchip or "none"]
  if not number then
    error(("luna.vm: irqchip: 'none', 'split' or 'kernel' expected, got %s")
      :format(tostring(options.irqchip)), 3)
  end
  local pit = check.flag("luna.vm: pit", options.pit, 2) and 1 or 0
  return number, pit
end

--- Makes a VM with space 0 (vm.default), no memory and no vCPU. options.dirty: how written pages
--- are followed (space:dirty), "bitmap" where nil, or "ring", which is better where few pages of
--- much memory are written; options.dirty_ring: its entries for each vCPU, a power of two, 4096
--- where nil. options.irqchip: "none", "split" (LAPICs in KVM) or "kernel" (LAPICs, IOAPIC and
--- PICs in KVM; one space); options.pit: a PIT in KVM too; options.apic_frequency: as
--- vm:apic_frequency. options.unknown_msrs: what an MSR that KVM does not know is to the guest,
--- "exit" of the kind msr, or "fault" (#GP) where nil. options.hypercalls = true: the hypercalls
--- that KVM can hand on are exits of the kind "hypercall" (KVM_HC_MAP_GPA_RANGE alone, by which a
--- guest shares memory or encrypts it); else KVM answers all by itself. options.unknown: what an
--- access to a port or address is that no device and no handler takes: "stop", an exit that run
--- returns, where nil; "ones" or "zeros" for the guest to read; "log", which says it and is "ones".
--- options.clock: the clock of the devices (vm.clock), a device.clock(); real time where nil.
--- options.accel: what runs its vCPUs, "kvm", "soft" (the software CPU) or "auto", which is what
--- the environment variable LUNA_ACCEL says and without a word KVM where its device can be opened,
--- else the software CPU. vm.accel and vm.accel_reason are which it is, and why. nil, message, code
--- where the VM cannot be had here; luna.probe() tells more.
local function new(options)
  options = check.options("luna.vm", options, known_options)
  unowned.check("luna.vm", options.unknown)
  if options.clock ~= nil then check.object("luna.vm: clock", options.clock, clocks.class) end
  local ring, unknown_msrs, hertz = ring_of(options), unknown_msrs_of(options),
    options.apic_frequency
  if hertz ~= nil then hertz = check.whole("luna.vm: apic_frequency", hertz, 16e6, 2e9) end
  local irqchip, pit = irqchip_of(options)
  local accel = accels.number("luna.vm: accel", options.accel)
  local handle, message, code = check.again(raw.vm_create, ring, irqchip, pit,
    unknown_msrs, accel)
  if not handle then return check.result(nil, message, code) end
  local self = setmetatable({
    handle, message,
    served = {},                                  -- by trap number: what the run loop looks up
    hits = {},                                    -- by trap number: how many accesses came
    watchers = false,                             -- vm/watch.lua: makes what answers and tells
    unowned = unowned.new(options.unknown),       -- accesses that nobody took
    attached = { entries = {}, lines = {} },      -- vm/attach.lua: devices of the kit
    watches = {},                                 -- vm/watch.lua
    recording = false,                            -- vm/record.lua
    clock = options.clock or false,               -- of devices
    devices = false,                              -- a view of what is attached
    special = {},                                 -- the same for what is no plain read and write
    traps = {},                                   -- by number
    vcpus = {},                                   -- a list, in the order of their numbers
    spaces = {},                                  -- by number
    started = {},                                 -- by number: vCPUs that have a thread
    timers = {},                                  -- a heap: timer.lua
    next_timer = false,                           -- the moment of the earliest
    runner = runner.new(),                        -- of vm:run and vm:poll
    serving = false,                              -- the vCPU whose exit they have given out last
    alone = false,                                -- the one that runs in the thread of vm:run
    slice = false,                                -- when that looks for signals
    stopping = false,                             -- { value } once vm:stop was called
    held = {},                                    -- eventfds, and irqfds with whose they are
    polled = false,                               -- whether vm:fd was asked for
    due = false,                                  -- whether a stop waits for vm:poll
    symbols = symbols.new {},                     -- names of addresses, of what was loaded last
    machine = false,                              -- what luna.machine has made it as
    chips = { irqchip = options.irqchip or "none", pit = options.pit or false },
    meter = false,                                -- vm/meter.lua: what measures its runs
  }, VM)
  self.accel, self.accel_reason = accels.of(self)
  attach.begin(self)
  meters.begin(self)
  self.default = spaces.new(self, 0)
  self.spaces[0] = self.default
  local done = true
  if options.hypercalls then done, message, code = raw.hypercalls(self) end
  if done and hertz then done, message, code = raw.set_apic_frequency(self, hertz) end
  if not done then
    raw.close(self)
    return check.result(nil, message, code)
  end
  return self
end

--- Closes the VM and its vCPUs; buffers are not closed. A run in whose handler that is done ends
--- with exit.kind "stopped". Doing it twice is fine.
function methods.close(self)
  mine(self)
  if runner.busy(self.runner) then self.stopping = self.stopping or {} end
  timers.close(self)
  if self.meter then self.meter:close() end
  for i = #self.vcpus, 1, -1 do self.vcpus[i]:close() end
  if self.recording then self.recording:close() end
  self.held = {}
  raw.close(self)
end

--- A further guest-physical address space of the VM: a map of its own, over the same buffers.
--- nil, message, code where the host refuses.
function methods.space(self)
  open(self)
  return check.result(keep(function(id)
    self.spaces[id] = nil
    if self[1] then raw.space_destroy(self, id) end
  end, function(id)
    self.spaces[id] = spaces.new(self, id)
    return self.spaces[id]
  end, check.again, raw.space_create, self))
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
  open(self)
  space = space_of(self, space, "vm:map_space")
  local gpa, size, rights, offset = map.map("vm:map_space", 2, buffer, ...)
  return check.result(raw.map(self, space.id, buffer, offset, gpa, size, rights))
end

function methods.unmap_space(self, space, gpa, size)
  open(self)
  space = space_of(self, space, "vm:unmap_space")
  gpa, size = map.range("vm:unmap_space", 2, gpa, size)
  return check.result(raw.unmap(self, space.id, gpa, size))
end

function methods.protect_space(self, space, gpa, size, rights, options)
  open(self)
  space = space_of(self, space, "vm:protect_space")
  gpa, size, rights = map.protect("vm:protect_space", 2, gpa, size, rights, options)
  return check.result(raw.protect(self, space.id, gpa, size, rights))
end

local trap_options = { coalesced = true }

-- Refuses a place whose accesses would never come to the device.
local function check_seen(self, what, kind, first, length, device)
  local why = hidden.why(self, kind, first, length, device)
  if why then
    error(("%s: %s 0x%x..0x%x: %s"):format(what, kind == "pio" and "ports" or "gpa", first,
      first + length - 1, why), 3)
  end
end

--- Gives I/O ports [port, port + length) to a device: a table with
---   read(device, offset, size) -> value     and/or     write(device, offset, size, value)
--- offset counts from `port`, size is 1, 2 or 4; or { memory = buffer, offset = n }, and every
--- access goes to the buffer, `port` being its byte n (0 where nil), without leaving the core.
--- String I/O (rep ins, rep outs) comes element by element, unless the device has
---   read_block(device, offset, size, count) -> string of size * count bytes     and/or
---   write_block(device, offset, size, data)
--- when it is added: they get all the elements that KVM brings at once, and single accesses too
--- where there is no read or write. An error in them leaves the whole block open.
--- options.coalesced: vm:coalesce. Returns a trap, whose close() gives the ports back.
function methods.pio(self, port, length, device, options)
  open(self)
  port = check.whole("vm:pio: port", port, 0)
  length = check.whole("vm:pio: length", length, 0)
  traps.check("vm:pio", device, true)
  options = check.options("vm:pio", options, trap_options)
  local coalesced = check.flag("vm:pio: coalesced", options.coalesced)
  check_seen(self, "vm:pio", "pio", port, length, device)
  return check.result(traps.add(self, "pio", port, length, device, coalesced))
end

--- The same for guest-physical addresses [gpa, gpa + length), in every space; size is 1 to 8, and
--- values of more than 4 bytes are u64. Memory goes before a device: what a region allows never
--- reaches it. So addresses raise that are mapped in every space with the rights for all that the
--- device answers; what is mapped there later hides it, and print(trap) says so.
function methods.mmio(self, gpa, length, device, options)
  open(self)
  gpa = check.whole("vm:mmio: gpa", gpa, 0)
  length = check.size("vm:mmio: length", length)
  traps.check("vm:mmio", device)
  options = check.options("vm:mmio", options, trap_options)
  local coalesced = check.flag("vm:mmio: coalesced", options.coalesced)
  check_seen(self, "vm:mmio", "mmio", gpa, length, device)
  return check.result(traps.add(self, "mmio", gpa, length, device, coalesced))
end

--- Makes a vCPU; see vcpu.lua for the options.
function methods.vcpu(self, options)
  open(self)
  return vcpus.new(self, options) -- a tail call, so that its checks blame the caller
end

--- What vm.symbols calls an address, a number or u64: "main", "main+0x12", or nil. vm.symbols are
--- those of the image that luna.load has put in last, if it has any, or what a script sets, such as
--- the labels of luna.asm.
function methods.symbol(self, address)
  mine(self)
  check.object("vm:symbol: vm.symbols", self.symbols, symbols.class)
  local name = self.symbols:name(address)
  return name
end

--- The source line of an address, by the lines of the same image, or what else vm.symbols knows:
--- a table with file, line, column, path, address; tostring gives "kernel.c:12". nil, message, code
--- as of symbols:line.
function methods.source_line(self, address)
  mine(self)
  check.object("vm:source_line: vm.symbols", self.symbols, symbols.class)
  return self.symbols:line(address) -- a tail call, so that its checks blame the caller
end

-- The further subjects, one file each: functions that add methods. Most programs have no use for
-- those that come when a name is missing.
require "lunavisor.vm.thread"(methods)
local further = class.further(function(part)
  require("lunavisor.vm." .. part)(methods, space_of)
end, { "event", "interrupt", "watch", "replace", "machine", "gdb", "core" })
attach.add(methods)
record.add_to(methods)

class.define(VM, methods, [[
  default vcpus spaces devices clock accel accel_reason symbols machine]], [[
  served hits watchers watches recording unowned attached special traps started timers next_timer
  runner serving alone slice stopping polled due held meter chips]], further)
VM.__close = methods.close

function VM.__tostring(self)
  if not raw.is_open(self) then return "vm (closed)" end
  local claimed = 0
  for _ in pairs(self.traps) do claimed = claimed + 1 end
  return ("vm (%d vcpus, %d traps)\non %s: %s\n%s"):format(#self.vcpus, claimed, self.accel,
    self.accel_reason, tostring(self.default))
end

return { new = new, class = VM }
