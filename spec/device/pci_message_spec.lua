-- SPDX-License-Identifier: MIT
-- PCI functions by pci.device: capabilities, MSI and MSI-X, expansion ROMs, wide BARs, ECAM, and
-- the PIIX3's routing. Sections are of the PCI Local Bus Specification 3.0.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local pci = require "lunavisor.device.models.pci"
local pci_host = require "lunavisor.device.models.pci_host"
local piix3 = require "lunavisor.device.models.piix3"
local random = require "spec.support.device"

local card = pci.device "card" {
  pci = { vendor = 0x1234, device = 0x5678, pin = 1, msi = { count = 4 },
    msix = { count = 40, bar = 4 },
    bars = { [0] = { region = "regs", size = 16 },
      [2] = { region = "regs", size = 2 ^ 34, kind = "memory64" } },
    rom = { region = "rom", size = 2048 },
    capabilities = { { id = 0x09, size = 6, registers = function(at)
      return { OWN = { at = at + 2, width = 2, access = "const", reset = 0xabcd } }
    end } },
  },
  regions = {
    regs = { size = 16, registers = { STATUS = { at = 0 } } },
    rom = { size = 2048, width = 1, registers = { IMAGE = { at = 0, count = 2, access = "ro",
      reset = "\x55\xaa" } } },
  },
  lines = { irq = { status = "STATUS" } },
}

local host, dev, sent, moves

local function rd(at, size) return dev.regions.config.read(nil, at, size or 4) end
local function wr(at, value, size) dev.regions.config.write(nil, at, size or 4, value) end

-- The offset of a capability of that id.
local function find(id)
  local at = rd(0x34, 1)
  while at ~= 0 do
    if rd(at, 1) == id then return at end
    at = rd(at + 1, 1)
  end
  return nil
end

before_each(function()
  sent, moves = {}, {}
  host = pci_host { log = false, message = function(address, data)
    sent[#sent + 1] = ("%x %x"):format(address, data)
  end, map = function(_, region, way, base)
    moves[#moves + 1] = ("%s %s %s"):format(region, way, base and ("%x"):format(base) or "nowhere")
  end }
  dev = host:add(card { log = false }, 1)
end)

local function take()
  local text = table.concat(sent, ", ")
  sent = {}
  return text
end

describe("capabilities (6.7)", function()
  it("are a list that the status announces", function()
    assert.equal(0x10, rd(6, 2))
    assert.equal(0x40, rd(0x34, 1))
    assert.equal(0x40, find(0x05))
    assert.equal(0x58, find(0x11))
    assert.equal(0x64, find(0x09))
    assert.equal(0xabcd0009, rd(0x64))
    assert.is_nil(find(0x10))
  end)

  it("are none where there are none", function()
    dev = host:add(pci.device "plain" { pci = { vendor = 1 } } { log = false }, 2)
    assert.equal(0, rd(6, 2))
    assert.equal(0, rd(0x34, 1))
  end)

  it("are refused where they do not fit", function()
    local ok, message = pcall(pci.config, { capabilities = { { id = 9, size = 200,
      registers = function() return {} end } } })
    assert.is_false(ok)
    assert.truthy(message:find("capabilities[1]: ", 1, true), message)
    ok, message = pcall(pci.config, { msi = { count = 3 } })
    assert.is_false(ok)
    assert.truthy(message:find("msi: count: 1, 2, 4 to 32 expected, got 3", 1, true), message)
    helper.raises("pci.config: unknown key 'vendro'; did you mean 'vendor'?", function()
      pci.config { vendro = 1 }
    end)
  end)
end)

describe("MSI (6.8.1)", function()
  before_each(function()
    wr(4, 6, 2)
    wr(0x44, 0xfee01003)
    wr(0x4c, 0x4041, 2)
  end)

  it("offers its vectors, 64-bit addresses and masks", function()
    assert.equal(0x0184, rd(0x42, 2))
    assert.equal(0xfee01000, rd(0x44))
    wr(0x50, 0xffffffff)
    assert.equal(0xf, rd(0x50))
  end)

  it("sends what the line would have said, and the pin is quiet", function()
    dev.STATUS = 1
    assert.is_true(host.lines.intb)
    wr(0x42, 1, 2)
    assert.is_false(host.lines.intb)
    assert.equal("", take())
    dev.STATUS = 0
    dev.STATUS = 1
    assert.equal("fee01000 4041", take())
    assert.equal(0x18, rd(6, 2))
    wr(0x42, 0, 2)
    assert.is_true(host.lines.intb)
  end)

  it("puts the vector into the low bits that are given", function()
    wr(0x42, 0x21, 2)
    for vector = 0, 3 do assert.is_true(pci.message(dev, vector)) end
    assert.equal("fee01000 4040, fee01000 4041, fee01000 4042, fee01000 4043", take())
    wr(0x42, 0x01, 2)
    pci.message(dev, 3)
    assert.equal("fee01000 4041", take())
    wr(0x42, 0x71, 2) -- more than it is capable of
    pci.message(dev, 7)
    assert.equal("fee01000 4043", take())
  end)

  it("keeps what is masked", function()
    wr(0x42, 0x21, 2)
    wr(0x50, 0xa)
    pci.message(dev, 1)
    pci.message(dev, 1)
    pci.message(dev, 2)
    assert.equal("fee01000 4042", take())
    assert.equal(2, rd(0x54))
    wr(0x50, 0x8)
    assert.equal("fee01000 4041", take())
    assert.equal(0, rd(0x54))
  end)

  it("comes from bus masters alone, at any address", function()
    wr(0x42, 1, 2)
    wr(0x48, 0x12345678)
    pci.message(dev)
    assert.equal("12345678fee01000 4041", take())
    wr(4, 2, 2)
    pci.message(dev)
    assert.equal("", take())
  end)

  it("is memory's where nobody takes it", function()
    local memory = device.memory(16, 0x1000)
    dev = pci_host { log = false }:add(card { log = false, dma = memory }, 1)
    assert.is_false(pci.message(dev))
    wr(4, 6, 2)
    wr(0x44, 0x1004)
    wr(0x4c, 0x55, 2)
    wr(0x42, 1, 2)
    pci.message(dev)
    assert.equal(0x55, memory[0x1004])
  end)
end)

describe("MSI-X (6.8.2)", function()
  local function entry(vector, address, data, control)
    local at = 16 * vector
    for i, value in ipairs { address, 0, data, control } do
      dev.regions.msix.write(nil, at + 4 * i - 4, 4, value)
    end
  end

  before_each(function()
    wr(4, 6, 2)
    wr(0x5a, 0x8000, 2)
  end)

  it("says where its table and its pending bits are", function()
    assert.equal(39 + 0x8000, rd(0x5a, 2))
    assert.equal(4, rd(0x5c))
    assert.equal(640 + 4, rd(0x60))
    assert.equal(4096, dev.regions.msix.size)
    wr(0x20, 0xffffffff)
    assert.equal(0xfffff000, rd(0x20))
  end)

  it("has each vector masked at first", function()
    assert.equal(1, dev.regions.msix.read(nil, 16 * 39 + 12, 4))
    entry(39, 0xfee00000, 0x30, 1)
    pci.message(dev, 39)
    assert.equal("", take())
    assert.equal(0x80, dev.regions.msix.read(nil, 640 + 4, 4))
    dev.regions.msix.write(nil, 16 * 39 + 12, 4, 0)
    assert.equal("fee00000 30", take())
    assert.equal(0, dev.regions.msix.read(nil, 640 + 4, 4))
  end)

  it("has a mask for all", function()
    entry(0, 0xfee00000, 0x31, 0)
    wr(0x5a, 0xc000, 2)
    dev.STATUS = 1
    assert.is_false(host.lines.intb)
    assert.equal("", take())
    wr(0x5a, 0x8000, 2)
    assert.equal("fee00000 31", take())
  end)
end)

describe("BARs of 64 bits and expansion ROMs", function()
  it("show sizes beyond 4 GiB", function()
    wr(0x18, 0xffffffff)
    wr(0x1c, 0xffffffff)
    assert.equal(4, rd(0x18))
    assert.equal(0xfffffffc, rd(0x1c))
    wr(0x1c, 0x10)
    wr(4, 2, 2)
    assert.equal("regs mmio 1000000000", table.concat(moves, ", "))
  end)

  it("decode a ROM while both bits say so (6.2.5.2)", function()
    wr(0x30, 0xfffffffe)
    assert.equal(0xfffff800, rd(0x30))
    wr(0x30, 0xe0000800)
    wr(4, 2, 2)
    assert.same({}, moves)
    wr(0x30, 0xe0000801)
    assert.same({ "rom mmio e0000800" }, moves)
    wr(4, 0, 2)
    assert.equal("rom mmio nowhere", moves[2])
  end)

  it("leave before they come, so that two can change places", function()
    local two = pci.device "two" { pci = { bars = { [0] = { region = "a", size = 16 },
      [1] = { region = "b", size = 16 } } }, regions = {
        a = { size = 16, registers = { A = { at = 0 } } },
        b = { size = 16, registers = { B = { at = 0 } } } } }
    dev = host:add(two { log = false }, 5)
    wr(0x10, 0x1000)
    wr(0x14, 0x2000)
    wr(4, 2, 2)
    moves = {}
    local saved = dev:save()
    saved.registers.PCI_BAR0, saved.registers.PCI_BAR1 = 0x2000, 0x1000
    assert(dev:load(saved))
    local text = table.concat(moves, ", ")
    assert.truthy(text:find "nowhere, %a mmio nowhere, b mmio 1000, a mmio 2000$", text)
    moves = {}
    dev:reset()
    assert.equal(2, #moves)
  end)

  it("are refused where they are none", function()
    helper.raises("rom: { region = name, size = a power of two from 2048", function()
      pci.device "x" { pci = { rom = { region = "x", size = 100 } } }
    end)
  end)
end)

describe("ECAM", function()
  local function ecam(slot, at, size)
    return host.regions.ecam.read(nil, slot * 0x8000 + at, size)
  end

  it("is the same space as mechanism 1, 4096 bytes a function", function()
    assert.equal(0x56781234, ecam(1, 0, 4))
    assert.equal(0x5678, ecam(1, 2, 2))
    host.regions.ecam.write(nil, 0x8000 + 4, 2, 2)
    assert.equal(2, rd(4, 2))
    assert.equal(0, ecam(1, 0x100, 4))
    assert.equal(0xffffffff, ecam(2, 0, 4))
    assert.equal(0xff, ecam(2, 0xfff, 1))
    assert.equal(0xffff, ecam(1, 3, 2))
  end)
end)

describe("the PIIX3", function()
  it("routes the four interrupts by its table", function()
    local bridge = host:add(piix3 { log = false }, 3)
    for i = 0, 3 do
      host[({ [0] = "inta", "intb", "intc", "intd" })[i]]:connect(
        bridge.inputs[({ [0] = "pirqd", "pirqa", "pirqb", "pirqc" })[i]])
    end
    assert.equal(0x80808080, bridge.regions.config.read(nil, 0x60, 4))
    dev.STATUS = 1
    assert.is_false(bridge.lines.irq11)
    bridge.regions.config.write(nil, 0x60, 1, 11)
    assert.is_true(bridge.lines.irq11)
    bridge.regions.config.write(nil, 0x60, 1, 10)
    assert.is_false(bridge.lines.irq11)
    assert.is_true(bridge.lines.irq10)
    dev.STATUS = 0
    assert.is_false(bridge.lines.irq10)
  end)

  it("shares an interrupt between several", function()
    local bridge = piix3 { log = false }
    bridge.regions.config.write(nil, 0x60, 4, 0x05050505)
    bridge.inputs.pirqa:set(true)
    bridge.inputs.pirqc:set(true)
    bridge.inputs.pirqa:set(false)
    assert.is_true(bridge.lines.irq5)
  end)
end)

describe("a host with a route of its own", function()
  it("leads pins where it says", function()
    host = pci_host { log = false, route = function(slot, pin) return slot == 1 and pin + 1 end }
    dev = host:add(card { log = false }, 1)
    dev.STATUS = 1
    assert.is_true(host.lines.intc)
  end)
end)

random.describe("a PCI function with messages", function(log)
  local made = card { log = log, dma = device.memory(64) }
  pci_host { log = log, message = function() end }:add(made, 0)
  return made
end, function(made, next) pci.message(made, next(64)) end)
random.describe("piix3", function(log) return piix3 { log = log } end,
  function(made, next) made.inputs.pirqb:set(next(2)) end)
