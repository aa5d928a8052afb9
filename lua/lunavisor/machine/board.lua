-- SPDX-License-Identifier: MIT
-- What a machine is built on: its VM and memory, and how a part comes to its place, or another
-- device in its stead; how an image comes in, and the vCPUs that begin there.

local buffers = require "lunavisor.memory.buffer"
local class = require "lunavisor.class"
local device = require "lunavisor.device"
local dump = require "lunavisor.device.dump"
local instances = require "lunavisor.device.instance"
local load = require "lunavisor.load"
local vms = require "lunavisor.vm.vm"

local M = {}

local Board = {}
Board.__index = Board

local HOLE, HOLE_END = 0xc0000000, 2 ^ 32 -- what of the first 4 GiB is no memory
local WINDOW, ROMS = 0xa0000, 0xc0000     -- the VGA's, and what is behind it
local MIB = 0x100000

--- A VM with memory for a machine. nil, message, code where the host refuses.
function M.new(what, kind, options)
  local defaults = kind.defaults
  local irqchip = options.irqchip or defaults.irqchip
  local ok, vm, message, code = pcall(vms.new, { accel = options.accel, clock = options.clock,
    unknown = options.unknown or defaults.unknown,
    irqchip = irqchip == "pic" and "none" or irqchip,
    pit = irqchip == "kernel" and options.pit == "kernel" or nil })
  if not ok then
    error(what .. ": " .. vm:gsub("^[^\n]-:%d+: ", ""):gsub("^luna%.vm: ", ""), class.outside())
  end
  if not vm then return nil, message, code end
  local self = setmetatable({ what = what, vm = vm, options = options, irqchip = irqchip,
    cpus = options.cpus or 1, size = options.memory or defaults.memory, pins = {} }, Board)
  self.ram, message, code = buffers.new(self.size)
  if not self.ram then
    vm:close()
    return nil, message, code
  end
  return self
end

--- Takes back what was made.
function Board.close(self)
  self.vm:close()
  self.ram:close()
end

--- Maps the memory: without the VGA's window where `window` says so, and in two parts where it does
--- not fit below 3 GiB. nil, message, code where the host refuses.
function Board.map(self, window)
  local parts, low = {}, math.min(self.size, HOLE)
  local first = window and self.size > WINDOW and WINDOW or low
  parts[1] = { 0, 0, first }
  if first < low and low > ROMS then parts[2] = { ROMS, ROMS, low - ROMS } end
  if low < self.size then parts[#parts + 1] = { HOLE_END, low, self.size - low } end
  for _, part in ipairs(parts) do
    local ok, message, code = self.vm.default:map(self.ram, part[1], { offset = part[2],
      size = part[3] })
    if not ok then return nil, message, code end
  end
  return true
end

--- A function(open) that changes the memory to fit the gate of address line 20: while it is closed,
--- what is behind 1 MiB is what is at 0, as far as that is memory below the VGA's window. It is a
--- region of its own from the first time on, so that the others stay as they are.
function Board.gate(self)
  local low = math.min(self.size, WINDOW)
  local behind = math.max(0, math.min(self.size - MIB, WINDOW))
  local mapped = behind
  return function(open)
    local size = open and behind or low
    local ok, message = self.vm.default:update(function(update)
      if mapped > 0 then update:unmap(MIB, mapped) end
      if size > 0 then
        update:map(self.ram, MIB, { offset = open and MIB or 0, size = size, separate = true })
      end
    end)
    if ok then mapped = size end
    return ok, message
  end
end

--- What a device's line is led to for the interrupt `number` of a PC: the VM's line, or the input
--- of a controller that is a device.
function Board.irq(self, number)
  return self.pins[number] or number
end

local function model(name) return require("lunavisor.device.models." .. name) end

-- fn(...), which raises at the script's line what it says of the part.
local function tried(self, name, fn, ...)
  local ok, made, message, code = pcall(fn, ...)
  if ok then return made, message, code end
  local what = ("%s: devices: %s: "):format(self.what, name)
  error(what .. tostring(made):gsub("^[^\n]-:%d+: ", ""), class.outside())
end

-- A device of a model or what is in its stead, false where it is left out.
local function make(self, name, kind, options)
  local given = self.options.devices[name]
  if given == false then return false end
  local is = given and device.is(given)
  if is == "device" then return given end
  if is == "class" then kind = given else kind = model(kind) end
  local all = {}
  for key, value in pairs(is and {} or options or {}) do all[key] = value end
  for key, value in pairs(not is and given or {}) do all[key] = value end
  if all.name == nil then all.name = name end
  local made = tried(self, name, kind, all)
  return made
end

-- The lines that the device has, of those of the place.
local function place_of(dev, place)
  local all = { pio = place.pio, mmio = place.mmio }
  for _, about in ipairs(dump.layout_of(dev).lines) do all[about.name] = place[about.name] end
  return all
end

--- Puts a part into its place: { pio =, mmio =, and lines }, as vm:attach takes it. Returns the
--- device, false where the machine is to be without it; raises { message, code } where the host
--- refuses.
function Board.put(self, name, kind, place, options)
  local dev = make(self, name, kind, options)
  if not dev then return false end
  if dev.name ~= name then instances.rename(dev, name) end
  local made, message, code = tried(self, name, self.vm.attach, self.vm, dev, place_of(dev, place))
  if not made then error({ message, code }, 0) end
  return made
end

-- The vCPUs, of which the first begins at the entry; the others wait for it to start them.
local function add_cpus(self, entry)
  local cpuid = self.options.cpuid
  for i = 1, self.cpus do
    local options = { mode = "reset", wait = true }
    if i == 1 then
      options = {}
      for key, value in pairs(entry) do options[key] = value end
    end
    options.cpuid = cpuid
    local cpu, message, code = self.vm:vcpu(options)
    if not cpu then return nil, message, code end
  end
  return true
end

--- Loads the image and makes the vCPUs, where there is one. true, or nil, message, code.
function Board.boot(self, image, options)
  if image == nil then return true end
  local loaded, message, code = load(self.vm, image, options)
  if not loaded then return nil, message, code end
  self.image = loaded
  return add_cpus(self, loaded.entry)
end

return M
