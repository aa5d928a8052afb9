-- SPDX-License-Identifier: MIT
-- The I/O APIC against the datasheet of the 82093AA, whose sections are cited.

local buses = require "lunavisor.device.models.apic_bus"
local ioapic = require "lunavisor.device.models.ioapic"
local random = require "spec.support.device"

local chip, sent, taken

local function rd(index)
  chip.regions.main.write(nil, 0, 4, index)
  return chip.regions.main.read(nil, 0x10, 4)
end

local function wr(index, value)
  chip.regions.main.write(nil, 0, 4, index)
  chip.regions.main.write(nil, 0x10, 4, value)
end

local function take()
  local text = table.concat(sent, ", ")
  sent = {}
  return text
end

before_each(function()
  sent, taken = {}, true
  chip = ioapic { log = false, id = 2, send = function(message)
    sent[#sent + 1] = ("%x to %d%s%s"):format(message.vector, message.dest,
      message.logical and " logical" or "", message.level and " level" or "")
    return taken
  end }
end)

describe("the I/O APIC", function()
  it("has its registers behind an index (3.1)", function()
    assert.equal(0x02000000, rd(0))
    wr(0, 0xffffffff)
    assert.equal(0x0f000000, rd(0))
    assert.equal(0x00170011, rd(1))
    wr(1, 0)
    assert.equal(0x00170011, rd(1))
    assert.equal(0x10000, rd(0x10))
    assert.equal(0, rd(0x11))
    wr(0x3f, 0xffffffff)
    assert.equal(0xff000000, rd(0x3f))
    wr(0x3e, 0xffffffff)
    assert.equal(0x1afff, rd(0x3e))
    assert.equal(0, rd(0x40))
  end)

  it("sends an edge once, and loses it while it is masked (3.2.4)", function()
    chip.inputs[4]:set(true)
    wr(0x18, 0x31)
    assert.equal("", take())
    chip.inputs[4]:set(false)
    chip.inputs[4]:set(true)
    assert.equal("31 to 0", take())
    assert.equal(0x31, rd(0x18))
  end)

  it("sends a level until its end, and again while it is there", function()
    wr(0x27, 0x03000000)
    wr(0x26, 0x8831)
    chip.inputs[11]:set(true)
    assert.equal("31 to 3 logical level", take())
    assert.equal(0xc831, rd(0x26))
    chip.inputs[11]:set(false)
    chip.inputs[11]:set(true)
    assert.equal("", take())
    chip:eoi(0x30)
    assert.equal("", take())
    chip:eoi(0x31)
    assert.equal("31 to 3 logical level", take())
    chip.inputs[11]:set(false)
    chip:eoi(0x31)
    assert.equal("", take())
    assert.equal(0x8831, rd(0x26))
  end)

  it("sends a level that waits when it is unmasked", function()
    wr(0x26, 0x18031)
    chip.inputs[11]:set(true)
    assert.equal("", take())
    wr(0x26, 0x8031)
    assert.equal("31 to 0 level", take())
  end)

  it("waits for nobody's end where nobody took it", function()
    taken = false
    wr(0x26, 0x8031)
    chip.inputs[11]:set(true)
    assert.equal(0x8031, rd(0x26))
  end)

  it("forgets the end it waits for when it is made edge-triggered", function()
    wr(0x26, 0x8031)
    chip.inputs[11]:set(true)
    wr(0x26, 0x10031)
    assert.equal(0x10031, rd(0x26))
  end)

  it("ends by the EOI of the LAPIC that took it", function()
    local bus = buses.new()
    local apic = bus:lapic { log = false }
    chip = bus:ioapic { log = false }
    apic:write(0xf0, 4, 0x1ff)
    wr(0x26, 0x8051)
    chip.inputs[11]:set(true)
    assert.equal(0x51, apic:acknowledge())
    chip.inputs[11]:set(false)
    assert.equal(0xc051, rd(0x26))
    apic:write(0xb0, 4, 0)
    assert.equal(0x8051, rd(0x26))
    assert.is_false(apic.lines.intr)
  end)
end)

random.describe("ioapic", function(log)
  return ioapic { log = log, send = function(message) return message.vector % 2 == 0 end }
end, function(made, next)
  made.inputs[next(24)]:set(next(2))
  made:eoi(next(256))
end)
