-- SPDX-License-Identifier: MIT
-- The configuration space of a PCI function as a region of a device, and where its BARs are. By the
-- PCI Local Bus Specification 3.0, chapter 6. pci_host.lua puts functions on a bus.

local device = require "lunavisor.device"
local u64 = require "lunavisor.text.u64"

local M = {}

-- By device: { bars, where (base by BAR), move (function), wire, level }.
local places = setmetatable({}, { __mode = "k" })

-- ---- What a BAR decodes ----

local KINDS = { io = { 1, 2, 1 }, memory = { 0, 4, 1 }, memory64 = { 4, 4, 2 } }

-- The address of a BAR; nil where it decodes none: not on, or not set, or just being sized.
local function base_of(d, index, bar)
  local command = d.PCI_COMMAND
  if (bar.kind == "io" and command.io or command.memory) == 0 then return nil end
  local base = u64.tonumber(u64.band(d["PCI_BAR" .. index].value, u64.bnot(bar.size - 1)))
  if bar.kind == "memory64" then base = base + d["PCI_BAR" .. index + 1] * 2 ^ 32 end
  local limit = bar.kind == "io" and 65536 or bar.kind == "memory" and 2 ^ 32 - 1 or 2 ^ 52
  if base == 0 or base + bar.size > limit then return nil end
  return base
end

-- Tells where BARs have gone.
local function settle(d)
  local place = places[d]
  if not place then return end
  for index, bar in pairs(place.bars) do
    local base = base_of(d, index, bar)
    if base ~= place.where[index] then
      place.where[index] = base
      place.move(d, bar.region, bar.kind == "io" and "pio" or "mmio", base)
    end
  end
  if place.wire then -- 6.2.2, bit 10 of the command, bit 3 of the status
    d.PCI_STATUS.intx = place.level and 1 or 0
    place.wire:set(place.level and d.PCI_COMMAND.no_intx == 0)
  end
end

-- ---- The region ----

local KNOWN = { vendor = true, device = true, class = true, revision = true, header = true,
  subsystem_vendor = true, subsystem = true, pin = true, bars = true, registers = true }

local function const(at, width, value)
  return { at = at, width = width, access = "const", reset = value or 0 }
end

-- Bits below the size read as 0: writing ones shows it (6.2.5.1).
local function add_bar(registers, index, bar)
  local kind = KINDS[bar.kind or "memory"]
  local low = math.floor(math.log(bar.size or 0) / math.log(2) + 0.5)
  if not kind or 2 ^ low ~= bar.size or low < kind[2] or low > 31
    or type(bar.region) ~= "string" then
    error(("pci.config: bars[%d]: { region = name, size = a power of two, kind = 'memory', "
      .. "'memory64' or 'io' } expected"):format(index), 4)
  end
  registers["PCI_BAR" .. index] = { at = 0x10 + 4 * index, width = 4, write = settle, fields = {
    base = ("31:%d"):format(low),
    kind = { kind[2] == 2 and "1:0" or "3:0", "const",
      reset = kind[1] + (bar.prefetchable and 8 or 0) },
  } }
  if kind[3] == 2 then
    registers["PCI_BAR" .. index + 1] = { at = 0x14 + 4 * index, width = 4, write = settle }
  end
end

--- A region for a device's table: regions = { config = pci.config { vendor =, device =, class =
--- (24 bits: class, subclass, interface), revision =, header =, subsystem_vendor =, subsystem =,
--- pin = (1 is INTA#; none where nil), bars = { [0] = { region =, size =, kind =, prefetchable = }
--- }, registers = more of them } }.
function M.config(spec)
  for key in pairs(spec) do
    if not KNOWN[key] then error(("pci.config: unknown key '%s'"):format(tostring(key)), 2) end
  end
  local class = spec.class or 0
  local registers = {
    PCI_VENDOR = const(0, 2, spec.vendor), PCI_DEVICE = const(2, 2, spec.device),
    PCI_COMMAND = { at = 4, width = 2, write = settle, fields = { io = 0, memory = 1, master = 2,
      parity = 6, serr = 8, no_intx = 10 } },
    PCI_STATUS = { at = 6, width = 2, fields = { intx = { 3, "ro" }, capabilities = { 4, "const" },
      parity = { 8, "w1c" }, errors = { "15:11", "w1c" } } },
    PCI_REVISION = const(8, 1, spec.revision), PCI_INTERFACE = const(9, 1, class % 256),
    PCI_SUBCLASS = const(10, 1, math.floor(class / 256) % 256),
    PCI_CLASS = const(11, 1, math.floor(class / 65536)),
    PCI_CACHE_LINE = { at = 12, width = 1 }, PCI_LATENCY = { at = 13, width = 1 },
    PCI_HEADER = const(14, 1, spec.header), PCI_BIST = const(15, 1),
    PCI_SUBSYSTEM_VENDOR = const(0x2c, 2, spec.subsystem_vendor),
    PCI_SUBSYSTEM = const(0x2e, 2, spec.subsystem),
    PCI_CARDBUS = const(0x28, 4), PCI_ROM = const(0x30, 4), PCI_CAPABILITIES = const(0x34, 4),
    PCI_LINE = { at = 0x3c, width = 1 }, PCI_PIN = const(0x3d, 1, spec.pin),
  }
  for index, bar in pairs(spec.bars or {}) do add_bar(registers, index, bar) end
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

-- ---- On a bus ----

--- Says where the BARs of a function go: move(dev, region's name, "pio" or "mmio", base or nil),
--- and which line its interrupt drives: pin(number), nil for none.
function M.place(d, move, pin)
  local layout = rawget(d, "class").layout
  local spec = M.specs[layout.spec.regions and layout.spec.regions.config]
  if not spec then error(("device %s has no region config of pci.config"):format(d.name), 3) end
  local bars = {}
  for index, bar in pairs(spec.bars or {}) do
    bars[index] = { region = bar.region, size = bar.size, kind = bar.kind or "memory" }
  end
  local place = { bars = bars, where = {}, move = move, wire = false, level = false }
  places[d] = place
  if (spec.pin or 0) > 0 and pin then
    place.wire = device.line(d.name .. ".intx")
    place.wire:connect(pin(spec.pin))
    d.irq:connect(function(level)
      place.level = level
      settle(d)
    end)
  end
  settle(d)
end

--- A function for M.place and pci_host's option `map` that gives BARs their places in a VM.
function M.mapper(vm)
  local traps = {}
  return function(d, region, way, base)
    local key = d.name .. "." .. region
    if traps[key] then traps[key]:close() end
    traps[key] = nil
    if not base then return end
    local trap, why = vm[way](vm, base, d.regions[region].size, d.regions[region])
    if not trap then d:log(("%s is nowhere: %s"):format(region, why)) end
    traps[key] = trap
  end
end

return M
