-- SPDX-License-Identifier: MIT
-- The spec of the device to learn by, from its datasheet on, and of its driver:
-- busted --lua=luajit examples/edu/edu_spec.lua

local edu = require "examples.edu.edu"
local device = require "lunavisor.device"
local t = require "lunavisor.testing"

describe("edu", function()
  local bus
  before_each(function() bus = t.bus(edu) end)

  -- What the table says by itself: reset values, access kinds, widths, states.
  t.registers(edu)

  it("says who it is", function()
    assert.reads(bus, "ID", 0x010000ed)
  end)

  it("inverts what is written", function()
    bus:write32("LIVE", 0x12345678)
    assert.reads(bus, "LIVE", 0xedcba987)
  end)

  it("computes factorials, which begin anew at 2^32", function()
    for n, product in pairs { [0] = 1, [5] = 120, [12] = 479001600, [13] = 1932053504, [99] = 0 } do
      bus:write32("FACT", n)
      assert.reads(bus, "FACT", product)
    end
  end)

  it("interrupts where it was told to, until that is acknowledged", function()
    bus:write32("IER", 0x101)
    bus:write32("FACT", 3)
    assert.lowers(bus, "irq")
    bus:write32("STATUS", 0x80)
    bus:write32("FACT", 3)
    assert.raises(bus, "irq")
    bus:write32("ISR", 1)
    assert.edges(bus, "irq", "up", "down")
  end)

  it("copies memory to its buffer and back, and takes its time", function()
    bus.memory:write(0x2000, "hello")
    bus:write32("IER", 0x100)
    bus:write64("ADDRESS", 0x2000)
    bus:write32("OFFSET", 0x10)
    bus:write32("COUNT", 5)
    bus:write32("CMD", 5) -- start, interrupt
    assert.reads(bus, "STATUS.busy", 1)
    assert.lowers(bus, "irq")
    bus:pass(100e-6)
    assert.reads(bus, "STATUS.busy", 0)
    assert.raises(bus, "irq")
    bus:write64("ADDRESS", 0x3000)
    bus:write32("CMD", 3) -- start, outward
    bus:pass(100e-6)
    assert.memory(bus, 0x3000, "hello")
    assert.dma(bus, { from = 0x2000, bytes = 5 })
  end)

  it("copies nothing where memory or buffer end", function()
    bus:write64("ADDRESS", 2 ^ 40)
    bus:write32("COUNT", 8)
    bus:write32("CMD", 1)
    bus:pass(100e-6)
    assert.reads(bus, "CMD", 0)
    bus:write32("OFFSET", 4090)
    bus:write32("CMD", 1)
    bus:pass(100e-6)
    assert.same({ "edu: a transfer of 8 bytes at 0xffa does not fit in the buffer" }, bus.said)
  end)
end)

describe("the driver of edu", function()
  local function source()
    local file = assert(io.open("examples/edu/driver.asm"))
    local text = file:read "*a"
    file:close()
    return text
  end

  it("computes and copies by interrupts", function()
    if not require("lunavisor").probe().available then pending "no VM here" end
    local clock, guest = device.clock(), nil
    guest = t.guest(source(), { clock = clock, memory = "64K", devices = { { edu, mmio = 0xd0000,
      irq = function(up) if up then guest.cpu:irq(0x20) end end } } })
    guest.cpu:on("hlt", function()
      clock:advance(100e-6)
      return "continue"
    end)
    guest:prints "done"
    assert.memory(guest, 0x604, "\0\x5f\x37\0") -- 10!
    assert.memory(guest, 0x700, "through the device")
    assert.equal(3, guest.ram:u32(0x608)) -- interrupts
  end)
end)
