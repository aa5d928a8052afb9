-- SPDX-License-Identifier: MIT
-- Interrupts that the script injects, without a controller in KVM: when the guest takes them, in
-- which order, and what they do to a halted or a stopped guest.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex, u64 = luna.hex, luna.u64

-- Counts down, so that an interrupt window has the time to open, and halts for good.
local COUNT = "  mov cx, 3000\n count: loop count\n halt: hlt\n jmp halt\n"

helper.kvm("an interrupt", function()
  it("is taken at once where IF is set", function()
    local guest = irq.guest "nop\n hlt"
    guest.cpu.rflags = 0x202
    assert.is_true(guest.cpu:irq(0x21))
    assert.equal("0x1002", hex(guest:stops("hlt").rip))
    assert.same({ 0x21 }, guest.taken)
    assert.is_nil(guest.cpu.irq_waiting)
  end)

  it("waits for STI", function()
    local guest = irq.guest("cli\n out 0x30, al\n sti\n" .. COUNT)
    guest.cpu:irq(0x21)
    guest:stops "pio"
    assert.equal(0x21, guest.cpu.irq_waiting)
    assert.same({}, guest.taken)
    guest.cpu:answer()
    guest:stops "hlt"
    assert.same({ 0x21 }, guest.taken)
    assert.is_nil(guest.cpu.irq_waiting)
  end)

  it("that waits already is not doubled", function()
    local guest = irq.guest("sti\n" .. COUNT)
    assert.is_true(guest.cpu:irq(0x80))
    assert.is_false(guest.cpu:irq(0x80))
    guest:stops "hlt"
    assert.same({ 0x80 }, guest.taken)
  end)

  it("of a higher vector goes first", function()
    local guest = irq.guest("sti\n" .. COUNT)
    for _, vector in ipairs { 0x41, 0xff, 0x20, 0x40, 0xc0, 0x3f } do guest.cpu:irq(vector) end
    assert.equal(0xff, guest.cpu.irq_waiting)
    guest:stops "hlt"
    assert.same({ 0xff, 0xc0, 0x41, 0x40, 0x3f, 0x20 }, guest.taken)
  end)

  it("does not come where the guest keeps IF clear", function()
    local guest = irq.guest("cli\n" .. COUNT)
    guest.cpu:irq(0x21)
    guest:stops "hlt"
    assert.same({}, guest.taken)
    assert.equal(0x21, guest.cpu.irq_waiting)
    guest.cpu.rflags, guest.cpu.rip = 0x202, 0x1001
    guest:stops "hlt"
    assert.same({ 0x21 }, guest.taken)
  end)

  it("is held back by an RFLAGS that the script has written", function()
    local guest = irq.guest("sti\n nop\n out 0x30, al\n" .. COUNT)
    guest:stops "pio"
    guest.cpu:answer()
    guest.cpu.rflags = 2
    guest.cpu:irq(0x21)
    guest:stops "hlt"
    assert.same({}, guest.taken)
  end)

  it("ends a HLT before that becomes an exit", function()
    local guest = irq.guest "sti\n hlt\n out 0x30, al\n hlt"
    guest.cpu:irq(0x55)
    local exit = guest:stops "pio"
    assert.equal(0x30, exit.port)
    assert.same({ 0x55 }, guest.taken)
  end)

  it("wakes a guest whose HLT was an exit, behind the HLT", function()
    local guest = irq.guest "sti\n hlt\n out 0x30, al\n hlt"
    guest:stops "hlt"
    assert.same({}, guest.taken)
    guest.cpu:irq(0x56)
    guest:stops "pio"
    assert.same({ 0x56 }, guest.taken)
    assert.equal(0x1002, guest.ram:u16(0x8000 - 6)) -- where the handler returned to
  end)

  it("leaves a guest halted that has IF clear", function()
    local guest = irq.guest "cli\n hlt\n hlt"
    guest.cpu:irq(0x21)
    assert.equal("0x1002", hex(guest:stops("hlt").rip))
    assert.equal("0x1003", hex(guest:stops("hlt").rip))
    assert.same({}, guest.taken)
  end)

  it("can be asked for by a device, while the guest waits for its answer", function()
    local guest = irq.guest("sti\n nop\n in al, 0x31\n out 0x30, al\n" .. COUNT)
    guest.vm:pio(0x31, 1, { read = function()
      guest.cpu:irq(0x33)
      return 0x5a
    end })
    local value
    guest.cpu:on("pio", function(_, exit)
      value = exit.value
      return "continue"
    end)
    guest:stops "hlt"
    assert.same({ { 0x33 }, 0x5a }, { guest.taken, value })
  end)

  it("can be asked for by its own handler", function()
    local guest = irq.guest("sti\n" .. COUNT)
    local rounds = 0
    guest.cpu:on("hlt", function(cpu)
      rounds = rounds + 1
      cpu.rip = 0x1000
      cpu:irq(0x30 + rounds)
      return rounds < 4 and "continue" or "stop"
    end)
    guest:stops "hlt"
    assert.same({ 0x31, 0x32, 0x33 }, guest.taken)
  end)

  it("comes beside an exception that the script injects", function()
    local guest = irq.guest("sti\n nop\n out 0x30, al\n" .. COUNT)
    guest:stops "pio"
    guest.cpu:answer()
    guest.cpu:irq(0x90)
    guest.cpu:inject "#UD"
    guest:stops "hlt"
    assert.same({ 6, 0x90 }, guest.taken)
  end)

  it("gets a guest out of a loop from another run's end", function()
    local guest = irq.guest "sti\n again: jmp again"
    guest:stops("timeout", { timeout = 0.01 })
    guest.cpu:irq(0x77)
    guest:settles(function() return #guest.taken >= 1 end)
    assert.same({ 0x77 }, guest.taken)
  end)

  it("moves along to another space", function()
    local guest = irq.guest("cli\n out 0x30, al\n sti\n" .. COUNT)
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest.cpu:irq(0x44)
    guest:stops "pio"
    guest.cpu:answer()
    guest.cpu:set_space(view)
    guest:stops "hlt"
    assert.same({ { 0x44 }, 1 }, { guest.taken, guest.cpu.space.id })
  end)

  it("arrives as an exit in the modes with a system area", function()
    for _, mode in ipairs { "long", "user" } do
      local guest = helper.guest { mode = mode,
        source = "mov ecx, 3000\n count: dec ecx\n jnz count\n out 0x30, al" }
      guest.cpu.rflags = 0x202
      guest.cpu:irq(0x21)
      local exit = guest:stops "exception"
      assert.same({ "interrupt 0x21", 0x21, 0 }, { exit.name, exit.vector, exit.error_code })
      helper.contains("exception (interrupt 0x21) at rip 0x10", tostring(exit))
      assert.equal("0x202", hex(u64.band(guest.cpu.rflags, 0x202)))
      guest:stops "pio"
      assert.equal("0x0", hex(guest.cpu.rcx))
    end
  end)
end)

helper.kvm("an NMI", function()
  it("comes though IF is clear, and once", function()
    local guest = irq.guest("cli\n nop\n" .. COUNT)
    assert.is_true(guest.cpu:nmi())
    assert.is_true(guest.cpu:nmi())
    guest:stops "hlt"
    assert.same({ 2 }, guest.taken)
  end)

  it("ends a HLT, and comes before an interrupt", function()
    local guest = irq.guest("sti\n hlt\n" .. COUNT)
    guest:stops "hlt"
    guest.cpu:irq(0x21)
    guest.cpu:nmi()
    guest:stops "hlt"
    assert.same({ 2, 0x21 }, guest.taken)
  end)

  it("moves along to another space", function()
    local guest = irq.guest("cli\n out 0x30, al\n" .. COUNT)
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest:stops "pio"
    guest.cpu:answer()
    guest.cpu:nmi()
    guest.cpu:set_space(view)
    guest:stops "hlt"
    assert.same({ 2 }, guest.taken)
  end)
end)

helper.kvm("an SMI", function()
  it("is sent, or refused by name", function()
    local guest = irq.guest "hlt"
    if luna.probe().features.x86_smm > 0 then
      assert.is_true(guest.cpu:smi())
    else
      helper.refused("unsupported", "has no KVM_CAP_X86_SMM", guest.cpu:smi())
      guest:stops "hlt"
    end
  end)
end)

helper.kvm("misuse of interrupts", function()
  it("is refused", function()
    local guest = irq.guest "hlt"
    helper.raises("cpu:irq: vector: a whole number from 0 to 0xff expected, got -1",
      function() guest.cpu:irq(-1) end)
    helper.raises("expected, got 256", function() guest.cpu:irq(256) end)
    helper.raises("expected, got nil", function() guest.cpu:irq() end)
    helper.raises("cannot set an interrupt line: the VM was made without an interrupt controller",
      function() guest.vm:irq(1, true) end)
    helper.raises("cannot send a message-signalled interrupt", function() guest.vm:msi(0, 0) end)
    guest.cpu:close()
    for _, name in ipairs { "irq", "nmi", "smi", "sipi" } do
      helper.raises("attempt to use a closed vcpu", function() guest.cpu[name](guest.cpu, 32) end)
    end
  end)
end)
