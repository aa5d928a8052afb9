-- SPDX-License-Identifier: MIT
-- The configuration space of a PCI function as a region of a device, and where its BARs are. By the
-- PCI Local Bus Specification 3.0, chapter 6. pci_msi.lua has its messages; pci_host.lua puts
-- functions on a bus.

local classes = require "lunavisor.device.class"
local device = require "lunavisor.device"
local class = require "lunavisor.class"
local expose = require "lunavisor.device.expose"
local msi = require "lunavisor.device.models.pci_msi"
local traps = require "lunavisor.exit.trap"
local word = require "lunavisor.device.word"

local M = {}

-- A key of the device: { bars, where (base by BAR), move and message (functions), wire, level }. A
-- weak table by device would keep it under LuaJIT, since the functions lead back to it.
local PLACE = {}

-- ---- What a BAR decodes ----

local KINDS = { io = { 1, 2, 1 }, memory = { 0, 4, 1 }, memory64 = { 4, 4, 2 } }

local function value_of(d, name)
  local register = d[name]
  return type(register) == "number" and register or register.value
end

-- The address of a BAR; nil where it decodes none: not on, or not set, or just being sized.
local function base_of(d, index, bar)
  local command = d.PCI_COMMAND
  if (bar.kind == "io" and command.io or command.memory) == 0 then return nil end
  if index == "rom" and d.PCI_ROM.enable == 0 then return nil end -- 6.2.5.2
  local low = value_of(d, index == "rom" and "PCI_ROM" or "PCI_BAR" .. index)
  local base = low - low % math.min(bar.size, 2 ^ 32)
  if bar.kind == "memory64" then base = base + value_of(d, "PCI_BAR" .. index + 1) * 2 ^ 32 end
  local limit = bar.kind == "io" and 65536 or bar.kind == "memory" and 2 ^ 32 - 1 or 2 ^ 52
  if base == 0 or base + bar.size > limit then return nil end
  return base
end

-- Tells where BARs have gone: first who leaves, so that two can change places.
local function settle(d)
  local place = rawget(d, PLACE)
  if not place then return end
  local moved = {}
  for index, bar in pairs(place.bars) do
    local base = base_of(d, index, bar)
    if base ~= place.where[index] then
      local way = bar.kind == "io" and "pio" or "mmio"
      if place.where[index] then place.move(d, bar.region, way, nil) end
      place.where[index] = base
      if base then moved[#moved + 1] = { bar.region, way, base } end
    end
  end
  table.sort(moved, function(one, other) return one[3] < other[3] end)
  for _, to in ipairs(moved) do place.move(d, to[1], to[2], to[3]) end
  if place.wire then -- 6.2.2: bit 10 of the command, bit 3 of the status; 6.8.3.3
    d.PCI_STATUS.intx = place.level and 1 or 0
    place.wire:set(place.level and d.PCI_COMMAND.no_intx == 0 and not msi.is_on(d))
  end
end

-- ---- The region ----

local KNOWN = { vendor = true, device = true, class = true, revision = true, header = true,
  subsystem_vendor = true, subsystem = true, pin = true, bars = true, registers = true, rom = true,
  capabilities = true, msi = true, msix = true }

local function const(at, width, value)
  return { at = at, width = width, access = "const", reset = value or 0 }
end

-- Bits below the size read as 0: writing ones shows it (6.2.5.1).
local function add_bar(registers, index, bar)
  local kind = KINDS[bar.kind or "memory"]
  local low = word.only(bar.size)
  if not kind or not low or low < kind[2] or low > (kind[3] == 2 and 47 or 31)
    or type(bar.region) ~= "string" or index < 0 or index + kind[3] > 6 then
    error(("pci.config: bars[%s]: { region = name, size = a power of two, kind = 'memory', "
      .. "'memory64' or 'io' } expected"):format(tostring(index)), 4)
  end
  local fields = { kind = { kind[2] == 2 and "1:0" or "3:0", "const",
    reset = kind[1] + (bar.prefetchable and 8 or 0) } }
  if low < 32 then fields.base = ("31:%d"):format(low) end
  registers["PCI_BAR" .. index] = { at = 0x10 + 4 * index, width = 4, write = settle,
    fields = fields }
  if kind[3] == 2 then
    registers["PCI_BAR" .. index + 1] = { at = 0x14 + 4 * index, width = 4, write = settle,
      fields = { base = ("31:%d"):format(math.max(0, low - 32)) } }
  end
end

-- 6.2.5.2
local function add_rom(registers, rom)
  local low = type(rom) == "table" and word.only(rom.size)
  if not low or low < 11 or low > 24 or type(rom.region) ~= "string" then
    error("pci.config: rom: { region = name, size = a power of two from 2048 to 2^24 } expected", 4)
  end
  registers.PCI_ROM = { at = 0x30, width = 4, write = settle,
    fields = { enable = 0, base = ("31:%d"):format(low) } }
end

-- The list of capabilities (6.7), from 0x40: each has a number, and registers(at).
local function add_capabilities(registers, list)
  local at, link = 0x40, registers.PCI_CAPABILITIES
  for i, one in ipairs(list) do
    if type(one) ~= "table" or type(one.id) ~= "number" or type(one.size) ~= "number"
      or type(one.registers) ~= "function" or at + one.size > 256 then
      error(("pci.config: capabilities[%d]: { id =, size =, registers = function(at) } that fits "
        .. "in the %d bytes left expected"):format(i, 256 - at), 4)
    end
    link.reset = at
    link = const(at + 1, 1)
    registers["PCI_CAP" .. i], registers["PCI_CAP" .. i .. "_NEXT"] = const(at, 1, one.id), link
    for name, register in pairs(one.registers(at)) do registers[name] = register end
    at = at + one.size + -one.size % 4
  end
end

local function capabilities_of(spec)
  local list = {}
  if spec.msi then list[1] = msi.capability(spec.msi, settle) end
  if spec.msix then list[#list + 1] = msi.x_capability(spec.msix, settle) end
  for _, one in ipairs(spec.capabilities or {}) do list[#list + 1] = one end
  return list
end

--- A region for a device's table: regions = { config = pci.config { vendor =, device =, class =
--- (24 bits: class, subclass, interface), revision =, header =, subsystem_vendor =, subsystem =,
--- pin = (1 is INTA#; none where nil), bars = { [0] = { region =, size =, kind =, prefetchable = }
--- }, rom = { region =, size = }, msi = { count = }, msix = { count =, bar = } (pci.device adds its
--- region), capabilities = { { id =, size =, registers = function(at) } }, registers = more } }.
function M.config(spec)
  for key in pairs(spec) do
    if not KNOWN[key] then
      error(("pci.config: unknown key '%s'%s"):format(tostring(key), class.hint(key, KNOWN)), 2)
    end
  end
  local code, list = spec.class or 0, capabilities_of(spec)
  local registers = {
    PCI_VENDOR = const(0, 2, spec.vendor), PCI_DEVICE = const(2, 2, spec.device),
    PCI_COMMAND = { at = 4, width = 2, write = settle, fields = { io = 0, memory = 1, master = 2,
      parity = 6, serr = 8, no_intx = 10 } },
    PCI_STATUS = { at = 6, width = 2, fields = { intx = { 3, "ro" }, capabilities = { 4, "const",
      reset = list[1] and 1 or 0 },
      parity = { 8, "w1c" }, errors = { "15:11", "w1c" } } },
    PCI_REVISION = const(8, 1, spec.revision), PCI_INTERFACE = const(9, 1, code % 256),
    PCI_SUBCLASS = const(10, 1, math.floor(code / 256) % 256),
    PCI_CLASS = const(11, 1, math.floor(code / 65536)),
    PCI_CACHE_LINE = { at = 12, width = 1 }, PCI_LATENCY = { at = 13, width = 1 },
    PCI_HEADER = const(14, 1, spec.header), PCI_BIST = const(15, 1),
    PCI_SUBSYSTEM_VENDOR = const(0x2c, 2, spec.subsystem_vendor),
    PCI_SUBSYSTEM = const(0x2e, 2, spec.subsystem),
    PCI_CARDBUS = const(0x28, 4), PCI_ROM = const(0x30, 4), PCI_CAPABILITIES = const(0x34, 4),
    PCI_LINE = { at = 0x3c, width = 1 }, PCI_PIN = const(0x3d, 1, spec.pin),
  }
  for index, bar in pairs(spec.bars or {}) do add_bar(registers, index, bar) end
  if spec.rom then add_rom(registers, spec.rom) end
  add_capabilities(registers, list)
  for index = 0, 5 do
    local name = "PCI_BAR" .. index
    registers[name] = registers[name] or const(0x10 + 4 * index, 4)
  end
  for name, register in pairs(spec.registers or {}) do registers[name] = register end
  local region = { size = 256, width = 4, unknown = "zeros",
    registers = registers }
  M.specs[region] = spec
  return region
end

M.specs = setmetatable({}, { __mode = "k" })

-- Both functions, where there are two.
local function both(first, second)
  return second and function(...)
    first(...)
    second(...)
  end or first
end

--- pci.device "name" { pci = { what pci.config takes }, regions = ..., ... }: a class as device
--- "name" makes it, with the region config and, where pci.msix is given, the region msix. Its BARs
--- follow a reset and a state that is loaded.
function M.device(name)
  local info = debug.getinfo(2, "Sl")
  return function(given)
    local spec, regions, config = {}, {}, {}
    for key, value in pairs(given) do spec[key] = value end
    for key, value in pairs(given.regions or {}) do regions[key] = value end
    for key, value in pairs(given.pci or {}) do config[key] = value end
    if config.msix then
      local size
      regions.msix, size = msi.x_region(config.msix)
      config.bars = {}
      for index, bar in pairs(given.pci.bars or {}) do config.bars[index] = bar end
      config.bars[config.msix.bar] = { region = "msix", size = size }
    end
    regions.config = M.config(config)
    spec.pci, spec.regions = nil, regions
    spec.reset, spec.loaded = both(settle, spec.reset), both(settle, spec.loaded)
    return classes.class(info, name, spec)
  end
end

-- ---- On a bus ----

--- Says where the BARs of a function go: move(dev, region's name, "pio" or "mmio", base or nil);
--- which line its interrupt drives: pin(number), nil for none; and who takes its messages:
--- message(address, data), where nil the memory of its DMA.
function M.place(d, move, pin, message)
  local layout = rawget(d, "class").layout
  local spec = M.specs[layout.spec.regions and layout.spec.regions.config]
  if not spec then error(("device %s has no region config of pci.config"):format(d.name), 3) end
  local bars = { rom = spec.rom and { region = spec.rom.region, size = spec.rom.size,
    kind = "memory" } or nil }
  for index, bar in pairs(spec.bars or {}) do
    bars[index] = { region = bar.region, size = bar.size, kind = bar.kind or "memory" }
  end
  local place = { bars = bars, where = {}, move = move, wire = false, level = false }
  rawset(d, PLACE, place)
  msi.connect(d, message)
  if (spec.pin or 0) > 0 and pin then
    place.wire = device.line(d.name .. ".intx")
    place.wire:connect(pin(spec.pin))
  end
  local irq = layout.lines.irq and d.irq
  if irq then
    irq:connect(function(level)
      place.level = level
      if level then msi.send(d, 0) end
      settle(d)
    end)
  end
  settle(d)
end

--- A function for M.place and pci_host's option `map` that gives BARs their places in a VM.
function M.mapper(vm)
  local own = {}
  return function(d, region, way, base)
    local key = d.name .. "." .. region
    if own[key] then
      expose.leave(d.regions[region], vm.default, own[key].first)
      own[key]:close()
    end
    own[key] = nil
    if not base then return end
    local trap, why = traps.add(vm, way, base, d.regions[region].size, d.regions[region])
    if not trap then d:log(("%s is nowhere: %s"):format(region, why)) end
    own[key] = trap
    if trap and way == "mmio" then expose.enter(d.regions[region], vm.default, base) end
  end
end

--- Sends the message of a vector, 0 where nil, as the interrupt of a function: a device with
--- several calls it itself; the line `irq` sends number 0 when it rises. Whether messages are on.
function M.message(d, vector)
  return msi.send(d, vector or 0)
end

--- A function for pci_host's option `message`: to the LAPICs that KVM has for a VM.
function M.messenger(vm)
  return function(address, data) return vm:msi(address, data) end
end

return M
