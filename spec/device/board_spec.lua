-- SPDX-License-Identifier: MIT
-- Devices that ship, wired to each other as on a board, under random accesses to all of them: no
-- error, no hang, and what has to be true of their wires is.

local buses = require "lunavisor.device.models.apic_bus"
local device = require "lunavisor.device"
local i8259 = require "lunavisor.device.models.i8259"
local pci = require "lunavisor.device.models.pci"
local pci_host = require "lunavisor.device.models.pci_host"
local piix3 = require "lunavisor.device.models.piix3"
local random = require "spec.support.device"
local uart16550 = require "lunavisor.device.models.uart16550"

local card = pci.device "card" {
  pci = { vendor = 0x1234, pin = 1, msi = { count = 8 }, msix = { count = 8, bar = 1 },
    bars = { [0] = { region = "regs", size = 16 }, [2] = { region = "wide", size = 16,
      kind = "memory64" } } },
  regions = { regs = { registers = { STATUS = { at = 0, access = "w1c" }, RAISE = { at = 4,
    write = function(d, value) d.STATUS = value end }, TELL = { at = 8, write = function(d, value)
      pci.message(d, value % 16)
    end } }, size = 16 },
    wide = { size = 16, registers = { WIDE = { at = 0, width = 8 } } } },
  lines = { irq = { status = "STATUS" } },
}

local PIRQ = { inta = "pirqd", intb = "pirqa", intc = "pirqb", intd = "pirqc" }

-- { list of devices, the bus, the host, where BARs are }
local function board()
  local clock, bus, where = device.clock(), buses.new(), {}
  local function options(more)
    more.log, more.clock = false, clock
    return more
  end
  local slave = i8259(options { name = "pic2" })
  local pic = i8259(options { name = "pic", slaves = { [2] = slave } })
  local list = { slave, pic }
  for i = 0, 2 do
    list[#list + 1] = bus:lapic(options { name = "lapic" .. i, boot = i == 0, pic = pic,
      signal = function() end })
  end
  pic.int:connect(bus.lapics[1].inputs.lint0)
  local chip = bus:ioapic(options {})
  local host = pci_host(options { message = function(...) return bus:message(...) end,
    map = function(d, region, _, base) where[d.name .. "." .. region] = base end })
  local bridge = host:add(piix3(options {}), 1)
  local uart = uart16550(options { output = function() end })
  for i = 1, 3 do list[#list + 1] = host:add(card(options { name = "card" .. i }), i + 1) end
  for from, to in pairs(PIRQ) do host[from]:connect(bridge.inputs[to]) end
  for n = 3, 15 do
    local line = rawget(bridge, "irq" .. n)
    if line then
      line:connect(chip.inputs[n])
      line:connect(n < 8 and pic.inputs[n] or slave.inputs[n - 8])
    end
  end
  uart.irq:connect(chip.inputs[4])
  for _, one in ipairs { chip, host, bridge, uart } do list[#list + 1] = one end
  return { list = list, bus = bus, host = host, where = where, clock = clock, bridge = bridge }
end

local function class_of(vector) return math.floor(vector / 16) end

local function highest(array)
  for i = 7, 0, -1 do
    for bit = 31, 0, -1 do
      if math.floor(array[i] / 2 ^ bit) % 2 == 1 then return 32 * i + bit end
    end
  end
  return nil
end

-- SDM Vol. 3, 11.8.3: what interrupts is above the priority; and it is so on the line.
local function check_lapic(apic)
  local vector = highest(apic.IRR)
  local wants = apic.SVR.enable == 1 and vector
    and class_of(vector) > class_of(apic:read(0xa0, 4)) or false
  local lint = apic.LVT_LINT0
  local external = apic.extint or apic.inputs.lint0.level and lint.mask == 0 and lint.mode == 7
  assert.equal(wants or external, apic.lines.intr)
end

-- A pin is up while one of the functions that share it asks and may.
local function check_pins(made)
  local up = {}
  for slot = 2, 4 do
    local dev = made.host.functions[slot * 8]
    local command = dev.PCI_COMMAND
    if dev.lines.irq and command.no_intx == 0 and dev.MSI_CONTROL.enable == 0
      and dev.MSIX_CONTROL.enable == 0 then
      up[slot % 4] = true
    end
  end
  for i, name in ipairs { "inta", "intb", "intc", "intd" } do
    assert.equal(up[i - 1] or false, made.host.lines[name])
  end
end

local function check_bars(made)
  for slot = 2, 4 do
    local dev = made.host.functions[slot * 8]
    local base = dev.PCI_BAR0.base * 16
    local there = dev.PCI_COMMAND.memory == 1 and base ~= 0 and base + 16 <= 2 ^ 32 - 1
    assert.equal(there and base or nil, made.where[dev.name .. ".regs"])
  end
end

describe("a board of devices", function()
  it("keeps its wires right whatever a guest does", function()
    for seed = 1, 4 do
      local made, next = board(), random.numbers(seed)
      for i = 1, 800 do
        local dev = made.list[next(#made.list) + 1]
        local regions = random.regions(dev)
        random.access(dev, regions[next(#regions) + 1], next)
        local apic = made.bus.lapics[next(3) + 1]
        if next(6) == 0 then apic:acknowledge() end
        if next(6) == 0 then apic:write(0xb0, 4, 0) end
        if next(12) == 0 then apic:write(0xf0, 4, 0x1ff) end
        if i % 8 == 0 then made.clock:advance(next(1000) / 1e6) end
        check_lapic(apic)
        check_pins(made)
        check_bars(made)
      end
      for _, dev in ipairs(made.list) do
        assert.is_string(tostring(dev))
        assert(dev:load(dev:save()))
      end
      check_pins(made)
      check_bars(made)
    end
  end)
end)
