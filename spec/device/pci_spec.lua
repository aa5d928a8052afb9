-- SPDX-License-Identifier: MIT
-- The PCI host bridge, configuration spaces, BARs and INTx.

local device = require "lunavisor.device"
local pci = require "lunavisor.device.models.pci"
local pci_host = require "lunavisor.device.models.pci_host"
local random = require "spec.support.device"

local card = device "card" {
  regions = {
    config = pci.config { vendor = 0x1234, device = 0x11e8, class = 0x0c0330, revision = 0x10,
      subsystem_vendor = 0x1af4, subsystem = 0x1100, pin = 1, bars = {
        [0] = { region = "regs", size = 4096 }, [1] = { region = "ports", size = 32, kind = "io" },
        [2] = { region = "memory", size = 2 ^ 20, kind = "memory64", prefetchable = true },
      } },
    regs = { size = 4096, registers = { STATUS = { at = 0 } } },
    ports = { size = 32, registers = { PORT = { at = 0 } } },
    memory = { size = 2 ^ 20, registers = { WORD = { at = 0 } } },
  },
  lines = { irq = { status = "STATUS" } },
}

local host, dev, moves

local function select_register(slot, offset, number)
  host:write(0, 4, 0x80000000 + slot * 2048 + (number or 0) * 256 + offset - offset % 4)
end

local function rd(slot, offset, size)
  select_register(slot, offset)
  return host.regions.data.read(nil, offset % 4, size)
end

local function wr(slot, offset, size, value)
  select_register(slot, offset)
  host.regions.data.write(nil, offset % 4, size, value)
end

before_each(function()
  moves = {}
  host = pci_host { log = false, map = function(d, region, way, base)
    moves[#moves + 1] = ("%s.%s %s %s"):format(d.name, region, way,
      base and ("%x"):format(base) or "nowhere")
  end }
  dev = host:add(card { log = false }, 3)
end)

local function moved()
  table.sort(moves)
  local text = table.concat(moves, ", ")
  moves = {}
  return text
end

describe("the PCI host bridge", function()
  it("answers for its functions, and with ones for all others", function()
    assert.equal(0x11e81234, rd(3, 0, 4))
    assert.equal(0x11e8, rd(3, 2, 2))
    assert.equal(0x0c, rd(3, 11, 1))
    assert.equal(0x11001af4, rd(3, 0x2c, 4))
    assert.equal(0xffffffff, rd(4, 0, 4))
    assert.equal(0xffff, rd(4, 0, 2))
    assert.equal(0, rd(3, 0x40, 4))
  end)

  it("keeps its address, and does nothing without the enable or on another bus", function()
    select_register(3, 0)
    assert.equal(0x80001800, host:read(0, 4))
    host:write(0, 4, 0x00001800)
    assert.equal(0xffffffff, host.regions.data.read(nil, 0, 4))
    host:write(0, 4, 0x80011800)
    assert.equal(0xffffffff, host.regions.data.read(nil, 0, 4))
  end)

  it("takes only 32 bits for the address: 0xcf9 is the reset port", function()
    select_register(3, 0)
    host:write(1, 1, 0x06)
    assert.equal(0x80001800, host:read(0, 4))
    assert.equal(2, host.reset_out.edges)
    assert.equal(6, host:read(1, 1))
    host:write(1, 1, 0x06)
    assert.equal(2, host.reset_out.edges)
  end)

  it("refuses a slot that is taken or is none", function()
    local ok, message = pcall(host.add, host, card(), 3)
    assert.is_false(ok)
    assert.truthy(message:find("card is at slot 3, function 0 already", 1, true))
    ok, message = pcall(host.add, host, card(), 32)
    assert.is_false(ok)
    assert.truthy(message:find("a slot from 0 to 31", 1, true))
  end)
end)

describe("BARs", function()
  it("show their size where ones are written", function()
    for offset, mask in pairs { [0x10] = 0xfffff000, [0x14] = 0xffffffe1, [0x18] = 0xfff0000c,
      [0x1c] = 0xffffffff, [0x20] = 0 } do
      wr(3, offset, 4, 0xffffffff)
      assert.equal(mask, rd(3, offset, 4))
    end
  end)

  it("are somewhere while the command says so", function()
    wr(3, 0x10, 4, 0xfebc0000)
    wr(3, 0x14, 4, 0xc000)
    wr(3, 0x18, 4, 0x10000000)
    wr(3, 0x1c, 4, 0x8)
    assert.equal("", moved())
    wr(3, 4, 2, 3)
    assert.equal("card.memory mmio 810000000, card.ports pio c000, card.regs mmio febc0000",
      moved())
    wr(3, 4, 2, 2)
    assert.equal("card.ports pio nowhere", moved())
  end)

  it("move, and are nowhere while they are sized", function()
    wr(3, 4, 2, 2)
    wr(3, 0x10, 4, 0xe0000000)
    moved()
    wr(3, 0x10, 4, 0xffffffff)
    assert.equal("card.regs mmio nowhere", moved())
    wr(3, 0x10, 4, 0xd0000000)
    assert.equal("card.regs mmio d0000000", moved())
  end)

  it("are refused where they are none", function()
    local ok, message = pcall(pci.config, { bars = { [0] = { region = "x", size = 24 } } })
    assert.is_false(ok)
    assert.truthy(message:find("size = a power of two", 1, true), message)
  end)
end)

describe("INTx", function()
  it("comes to the pin of its slot, wired or, unless it is disabled", function()
    local other = host:add(card { name = "other", log = false }, 7)
    dev.STATUS = 1
    assert.is_true(host.lines.intd)
    assert.equal(8, rd(3, 6, 2))
    other.STATUS = 1
    wr(3, 4, 2, 0x400)
    assert.is_true(host.lines.intd)
    other.STATUS = 0
    assert.is_false(host.lines.intd)
    assert.equal(8, rd(3, 6, 2))
    wr(3, 4, 2, 0)
    assert.is_true(host.lines.intd)
  end)
end)

random.describe("pci_host", function(log)
  local made = pci_host { log = log }
  made:add(card { log = log }, 0)
  return made
end)
random.describe("a PCI function", function(log) return card { log = log } end)

describe("a host bridge in a VM", function()
  local helper = require "spec.support.helper"
  local luna = require "lunavisor"
  local vm, ram
  before_each(function()
    vm = helper.keep(assert(luna.vm { accel = "soft", clock = device.clock() }))
    ram = helper.keep(luna.buffer "64K")
    vm.default:map(ram, 0)
  end)
  after_each(function()
    vm, ram = nil, nil
    helper.clean()
  end)

  it("gives its functions the VM's memory, time and a name", function()
    local bridge = pci_host { log = false }
    local early = bridge:add(card { log = false }, 3)
    assert.is_nil(early.dma:read(0, 1))
    vm:attach(bridge, { pio = { main = 0xcf8, data = 0xcfc } })
    local late = bridge:add(card { log = false }, 4, 1)
    assert.equal(early, vm.devices.card)
    assert.equal(late, vm.devices["card@4.1"])
    for _, one in ipairs { early, late } do
      assert.is_true(one.dma:u32(0x100, 5))
      assert.equal(vm.clock, one.clock)
    end
    vm:detach(bridge)
    assert.equal(0, #vm:devices())
    vm:attach(bridge, { pio = { main = 0xcf8, data = 0xcfc } })
    assert.equal(3, #vm:devices())
  end)

  it("leaves alone what is at its place already", function()
    local own = vm:attach(card { log = false }, { name = "mine" })
    local bridge = vm:attach(pci_host { log = false }, { pio = { main = 0xcf8, data = 0xcfc } })
    bridge:add(own, 3)
    assert.equal(own, vm.devices.mine)
    vm:detach(bridge)
    assert.equal(own, vm.devices.mine)
  end)
end)

describe("a PCI device whose VM is gone", function()
  it("is garbage, and with it the memory that it has", function()
    local luna = require "lunavisor"
    local vga = require "lunavisor.device.models.vga"
    for _ = 1, 3 do collectgarbage() end -- what specs before this one have left
    local before = luna.live().buffer
    do
      local space = assert(luna.vm { accel = "soft" })
      local bus, screen = pci_host { map = pci.mapper(space) }, vga { log = false }
      bus:add(screen, 2)
      space:attach(screen, { pio = { io = 0x3c0 } })
      space:close()
    end
    for _ = 1, 3 do collectgarbage() end
    assert.equal(before, luna.live().buffer)
  end)
end)
