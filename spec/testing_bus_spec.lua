-- SPDX-License-Identifier: MIT
-- A device on a bus without a VM: accesses by name, fake time, lines, DMA memory, and faults that a
-- test makes. No VM is needed.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local t = require "lunavisor.testing"
local raises = helper.raises

local copier = device "copier" {
  registers = {
    ID = { at = 0x00, access = "ro", reset = 0x12345678 },
    CTRL = { at = 0x04, fields = { go = 0, mode = "7:4" }, write = function(dev)
      if dev.CTRL.go == 1 then dev:after(10e-6, "copy") end
    end },
    FROM = { at = 0x08, width = 8 }, TO = { at = 0x10, width = 8 }, SIZE = { at = 0x18 },
    ISR = { at = 0x1c, access = "w1c", fields = { done = 0, failed = 1 } },
    IER = { at = 0x20, reset = 3 },
    SLOTS = { at = 0x40, count = 4, stride = 8 },
    PIN = { at = 0x60, access = "ro", fields = { level = 0 } },
  },
  lines = { irq = { status = "ISR", enable = "IER" } },
  inputs = { pin = function(dev, level) dev.PIN.level = level and 1 or 0 end },
  timers = { copy = function(dev)
    local bytes = dev.dma:read(dev.FROM, dev.SIZE)
    local ok = bytes and dev.dma:write(dev.TO, bytes)
    dev.CTRL.go = 0
    dev.ISR[ok and "done" or "failed"] = 1
  end },
}

local function copy(bus, from, to, size)
  bus:write64("FROM", from)
  bus:write64("TO", to)
  bus:write32("SIZE", size)
  bus:write32("CTRL", 1)
end

describe("a bus", function()
  it("takes a device as require gives it, with a path beside it on 5.4", function()
    assert.equal("copier", t.bus(copier, "./copier.lua").name)
    assert.is_true(#t.derive(copier, "/some/where/copier.lua") > 30)
    raises("t.bus: a table of options expected, got string", function() t.bus(copier, "memory") end)
  end)

  local bus
  before_each(function() bus = t.bus(copier) end)

  it("reads and writes by offset and by name", function()
    assert.equal(0x12345678, bus:read32(0))
    assert.equal(0x12345678, bus:read "ID")
    assert.equal(0x78, bus:read8 "ID")
    assert.equal(0x1234, bus:read16(2))
    bus:write32(0x44 + 4, 7)
    assert.equal(7, bus:read32 "SLOTS[1]")
    bus:write("SLOTS[3]", nil, 9)
    assert.equal(9, bus.device.SLOTS[3])
    bus:write64("FROM", luna.u64(1, 2))
    assert.equal(luna.u64(1, 2), bus:read "FROM")
    assert.equal(luna.u64(1, 2), bus:read64(8))
    bus:write8("CTRL", 0x50)
    assert.equal(5, bus:read "CTRL.mode")
    assert.equal(0x50, bus:read "CTRL")
  end)

  it("blames the caller for a wrong name or value", function()
    raises("bus:read32: device copier has no register IDD; did you mean 'ID'?", function()
      bus:read32 "IDD"
    end)
    raises("bus:read: register CTRL has no field mod; did you mean 'mode'?", function()
      bus:read "CTRL.mod"
    end)
    raises("bus:write32: CTRL.go is a field", function() bus:write32("CTRL.go", 1) end)
    raises("bus:write8: a value of 1 byte expected, got 0x100", function()
      bus:write8("CTRL", 256)
    end)
    raises("SLOTS has the elements 0 to 3", function() bus:read "SLOTS[4]" end)
    raises("ID is no array", function() bus:read "ID[0]" end)
    raises("a size of 1 to 8 bytes expected, got nil", function() bus:read(0) end)
    raises("t.bus: unknown option 'memori'; did you mean 'memory'?", function()
      t.bus(copier, { memori = 1 })
    end)
    raises("t.bus: a device, a class of devices", function() t.bus(5) end)
    raises("a time in seconds expected, got -1", function() bus:pass(-1) end)
    raises("has no line irk; did you mean 'irq'?", function() return bus.lines.irk end)
  end)

  it("lets time pass", function()
    bus.memory:write(0x1000, "hello")
    copy(bus, 0x1000, 0x2000, 5)
    bus:pass(9e-6)
    assert.equal(("\0"):rep(5), bus.memory:read(0x2000, 5))
    bus:pass(1e-6)
    assert.equal("hello", bus.memory:read(0x2000, 5))
    assert.equal(1, bus:read "ISR.done")
  end)

  it("knows the lines and their edges", function()
    local told = {}
    bus:line("irq"):connect(function(level) told[#told + 1] = level end)
    copy(bus, 0, 0x100, 4)
    bus:pass(1)
    assert.is_true(bus.lines.irq)
    bus:write32("ISR", 1)
    assert.is_false(bus.lines.irq)
    assert.same({ true, false }, told)
    assert.same({ "up", "down" }, bus:edges "irq")
    assert.same({}, bus:edges "irq")
  end)

  it("drives inputs", function()
    bus:line("pin"):set(true)
    assert.equal(1, bus:read "PIN.level")
    assert.is_true(bus.lines.pin)
  end)

  it("sticks lines and inputs", function()
    bus:stick("irq", false)
    bus.device.ISR.done = 1
    assert.is_true(bus.device.lines.irq)
    assert.is_false(bus.lines.irq)
    bus:stick("irq", nil)
    assert.is_true(bus.lines.irq)
    bus:stick("pin", true)
    assert.equal(1, bus:read "PIN")
    bus:line("pin"):pulse()
    assert.equal(1, bus:read "PIN")
    bus:stick("pin", nil)
    assert.equal(0, bus:read "PIN")
    bus:line("pin"):set(true)
    assert.equal(1, bus:read "PIN")
  end)

  it("lets DMA fail", function()
    bus:fail_dma()
    copy(bus, 0, 0x100, 4)
    bus:pass(1)
    assert.equal(2, bus:read "ISR")
    bus:write32("ISR", 2)
    local undo = bus:fail_dma { gpa = 0x100, size = 4, access = "w" }
    for _, to in ipairs { 0x103, 0xff } do
      copy(bus, 0, to, 4)
      bus:pass(1)
      assert.equal(2, bus:read "ISR")
      bus:write32("ISR", 2)
    end
    copy(bus, 0, 0x104, 4)
    bus:pass(1)
    assert.equal(1, bus:read "ISR")
    undo()
    copy(bus, 0, 0x100, 4)
    bus:pass(1)
    assert.equal(1, bus:read "ISR")
    raises("unknown option 'acces'; did you mean 'access'?", function()
      bus:fail_dma { acces = "r" }
    end)
  end)

  it("has memory where it is told, and notes the DMA", function()
    bus = t.bus(copier, { memory = { { 0x1000, 0x10 }, { 0x1010, 0x10 }, { 0x9000, 4 } } })
    copy(bus, 0x1008, 0x9000, 4)
    bus:pass(1)
    copy(bus, 0x100c, 0x1000, 8) -- over two ranges
    bus:pass(1)
    assert.equal(1, bus:read "ISR")
    copy(bus, 0x1008, 0x9001, 4)
    bus:pass(1)
    assert.equal(3, bus:read "ISR")
    assert.equal(6, #bus.dma_log)
    assert.same({ access = "w", gpa = 0x9000, size = 4, data = "\0\0\0\0" }, bus.dma_log[2])
    assert.equal("nothing is mapped at gpa 0x9004", bus.dma_log[6].failed)
  end)

  it("hooks registers from outside", function()
    local seen = {}
    local undo = bus:before_read("ISR", function(b, value)
      seen[#seen + 1] = tostring(value)
      b.device.ISR.done = 1
    end)
    assert.equal(1, bus:read "ISR")
    assert.equal(1, bus:read8(0x1c))
    bus:read "IER"
    assert.same({ "nil", "nil" }, seen)
    undo()
    bus:write32("ISR", 1)
    assert.equal(0, bus:read "ISR")
    bus:after_read("ID", function(_, value) return value + 1 end)
    assert.equal(0x12345679, bus:read "ID")
    assert.equal(0x79, bus:read8 "ID")
    bus:before_write("SLOTS[1]", function(_, value) return value * 2 end)
    bus:write32("SLOTS[1]", 4)
    bus:write32("SLOTS[2]", 4)
    assert.equal(8, bus.device.SLOTS[1])
    assert.equal(4, bus.device.SLOTS[2])
    local all = 0
    bus:after_write(nil, function() all = all + 1 end)
    bus:write8(0, 1)
    assert.equal(1, all)
  end)

  it("keeps what the device says", function()
    bus:read8(0x70)
    assert.same({ "copier: read of 1 byte at offset 0x70, where no register is" }, bus.said)
  end)

  it("takes a device, a function, and a device made by hand", function()
    local dev = copier { name = "mine" }
    assert.equal(dev, t.bus(dev).device)
    assert.equal("mine", t.bus(function(options)
      options.name = "mine"
      return copier(options)
    end).device.name)
    local value = 3
    local hand = t.bus { read = function(_, offset) return offset + value end,
      write = function(_, _, _, new) value = new end }
    hand:write8(0, 10)
    assert.equal(12, hand:read32(2))
    assert.equal(11, hand:region():read(1, 1))
    raises("a device made by hand has no register ID", function() hand:read "ID" end)
    raises("a device made by hand has no clock", function() hand:pass(1) end)
  end)

  it("has the regions of a device by name", function()
    local both = t.bus(device "both" { regions = {
      pio = { registers = { A = { at = 0, width = 1 } } },
      mmio = { registers = { B = { at = 0, reset = 5 } } },
    } })
    both:write8("A", 3)
    assert.equal(3, both.device.A)
    assert.equal(5, both:read "B")
    assert.equal(3, both:region("pio"):read(0, 1))
    assert.equal(5, both:region("mmio"):read(0, 4))
    raises("there is no region mmoi; did you mean 'mmio'?", function() both:region "mmoi" end)
  end)
end)

helper.kvm("a bus in front of a VM", function()
  it("is the device that the guest has", function()
    local bus = t.bus(copier)
    local guest = helper.guest { source = "mov dx, 0x104\n mov al, 0x51\n out dx, al\n"
      .. "mov dx, 0x100\n in eax, dx\n hlt" }
    bus:after_read("ID", function() return 0xabcd end)
    guest.vm:pio(0x100, 0x70, bus:region())
    guest:stops "hlt"
    assert.equal("0xabcd", luna.hex(guest.cpu.rax))
    assert.equal(5, bus:read "CTRL.mode")
  end)
end)

describe("a mistake in a spec", function()
  it("is blamed on the spec's line, and says what to do", function()
    local bus = t.bus(copier)
    raises([[a bus has no field 'CTRL': the guest's is bus:read("CTRL"), the author's ]]
      .. "bus.device.CTRL", function() bus.CTRL.go = 1 end)
    raises("a bus has no field 'reed32'; did you mean 'read32'?", function() bus:reed32(0) end)
    raises("bus:read: register CTRL has no field goo; did you mean 'go'?",
      function() assert.reads(bus, "CTRL.goo", 1) end)
    raises("assert.reads: a bus expected, got number", function() assert.reads(5, "CTRL", 1) end)
    raises("t.guest: luna.asm: nasm refuses the source", function() t.guest "mov eax 5" end)
    raises("t.guest: unknown option 'deadline'; the options are accel, binary,",
      function() t.guest("hlt", { deadline = 1 }) end)
  end)
end)
