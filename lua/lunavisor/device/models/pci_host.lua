-- SPDX-License-Identifier: MIT
-- A PCI host bridge with configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2) for
-- one bus, and the reset port 0xcf9 of chipsets in the middle of it. Region main is at 0xcf8, data
-- at 0xcfc; ecam, 1 MiB, is the same as memory (PCI Express Base Specification, 7.2.2).
-- host:add(dev, slot, number) puts functions on it; inta to intd are their interrupts.

local device = require "lunavisor.device"
local pci = require "lunavisor.device.models.pci"
local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"

local bits = word.bits
local PINS = { [0] = "inta", "intb", "intc", "intd" }

local function key_of(slot, number) return slot * 8 + number end

-- The function that the address names, nil where there is none, and the offset in its space.
local function target(d, offset)
  local address = d.CONFIG_ADDRESS.value
  if bits(address, 31) == 0 or bits(address, 16, 8) ~= 0 then return nil end
  return d.functions[bits(address, 8, 8)], bits(address, 2, 6) * 4 + offset
end

-- Nobody answers: all ones (3.2.2.3.4).
local function read(d, offset, size)
  local fn, at = target(d, offset)
  if not fn or size > 4 - offset then return size < 8 and 256 ^ size - 1 or u64.bnot(0) end
  return fn.regions.config.read(nil, at, size)
end

local function write(d, offset, size, value)
  local fn, at = target(d, offset)
  if fn and size <= 4 - offset then fn.regions.config.write(nil, at, size, value) end
end

-- The function at an offset of ECAM, and the offset in its space of 4096 bytes. nil: there is none.
local function ecam_target(d, offset, size)
  local at = offset % 4096
  local fn = d.functions[math.floor(offset / 4096)]
  if not fn or at % 4 + size > 4 then return nil end
  return fn.regions.config, at
end

-- Behind its 256 bytes, a function has no extended capabilities: zeros (7.9.2).
local function ecam_read(d, offset, size)
  local config, at = ecam_target(d, offset, size)
  if not config then return size < 8 and 256 ^ size - 1 or u64.bnot(0) end
  return at + size <= config.size and config.read(nil, at, size) or 0
end

local function ecam_write(d, offset, size, value)
  local config, at = ecam_target(d, offset, size)
  if config and at + size <= config.size then config.write(nil, at, size, value) end
end

-- What is no access of 32 bits to the address: 0xcf9, with bit 1 for what and bit 2 for when.
local function narrow(d, access)
  if access.offset ~= 1 or access.size ~= 1 then return nil end
  if access.access == "r" then return d.reset_control end
  local old = d.reset_control
  d.reset_control = access.value % 8
  if bits(access.value, 2) > bits(old, 2) then d.reset_out:pulse() end
end

-- A function comes to the bridge's VM, for its time, its memory and a place among vm.devices: with
-- its slot behind its name where that is taken.
local function adopt(d, dev, key)
  if rawget(dev, "vm") then return end
  local name, vm = dev.name, d.vm
  if vm.attached.entries[name] then
    name = ("%s@%d.%d"):format(name, math.floor(key / 8), key % 8)
  end
  d.adopted[key] = vm:attach(dev, { name = name })
end

local function attached(d, vm)
  for key = 0, 255 do
    local dev = (vm and d.functions or d.adopted)[key]
    if dev and vm then adopt(d, dev, key) elseif dev then d.vm:detach(dev) end
  end
  if not vm then d.adopted = {} end
end

--- host:add(dev, slot, number): puts a device with a region `config` of pci.config at a slot, 0 to
--- 31, as that function of it, 0 to 7, 0 where nil. Slots have the four interrupts in turn, unless
--- the option route(slot, pin) says which: 0 to 3; pin 1 is INTA#.
local function add(d, dev, slot, number)
  number = number or 0
  if type(slot) ~= "number" or slot % 1 ~= 0 or slot < 0 or slot > 31 or number % 1 ~= 0
    or number < 0 or number > 7 then
    error(("host:add: a slot from 0 to 31 and a function from 0 to 7 expected, got %s and %s")
      :format(tostring(slot), tostring(number)), 2)
  end
  local key = key_of(slot, number)
  if d.functions[key] then
    error(("host:add: %s is at slot %d, function %d already"):format(d.functions[key].name, slot,
      number), 2)
  end
  local map = d.options.map or function() end
  local route = d.options.route or function(at, pin) return at + pin - 1 end
  pci.place(dev, map, function(pin) return d[PINS[route(slot, pin) % 4]] end,
    d.options.message or nil)
  d.functions[key] = dev
  if d.vm then adopt(d, dev, key) end
  return dev
end

return device "pci_host" {
  holds = "functions adopted", options = { map = false, message = false, route = false },
  regions = {
    main = { size = 4, width = 4, narrow = "refuse", unknown = narrow, registers = {
      CONFIG_ADDRESS = { at = 0, fields = { register = "7:2", number = "10:8", slot = "15:11",
        bus = "23:16", enable = 31 } },
    } },
    data = { size = 4, read = read, write = write },
    ecam = { size = 2 ^ 20, read = ecam_read, write = ecam_write },
  },
  state = { reset_control = 0 },
  lines = { inta = true, intb = true, intc = true, intd = true, reset_out = true },
  init = function(d) d.functions, d.adopted = {}, {} end,
  attached = attached,
  methods = { add = add },
}
