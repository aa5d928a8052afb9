-- SPDX-License-Identifier: MIT
-- What a controller of the script's needs: the moment when the guest accepts an interrupt, what
-- keeps it from that, a PIC's vector for a LAPIC in KVM; and finishing an instruction without
-- running on.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex = luna.hex

local split = (luna.probe().features or {}).split_irqchip or 0
-- A KVM that emulates looks for the window only now and then: the guest waits for it.
local WAIT = " wait_for_it: jmp wait_for_it\n"

helper.kvm("the interrupt window", function()
  it("ends a run when the guest accepts interrupts", function()
    local guest = irq.guest("nop\n sti\n nop\n" .. WAIT)
    assert.is_true(guest.cpu:window(true))
    local exit = guest:stops "other"
    assert.same({ 7, "irq_window_open" }, { exit.reason, exit.reason_name })
    helper.contains(
      "other (KVM exit reason 7, irq_window_open: the guest can take an interrupt now) at rip 0x",
      tostring(exit))
    local rip = guest.cpu.rip
    assert.same(hex(rip), hex(guest:stops("other").rip)) -- it does still
    assert.is_true(guest.cpu:window(false))
    guest.cpu:irq(0x21)
    guest:settles(function() return #guest.taken >= 1 end)
    assert.same({ 0x21 }, guest.taken)
  end)

  it("finds the guest behind an instruction that was answered", function()
    local guest = irq.guest("sti\n nop\n in al, 0x30\n nop\n" .. WAIT)
    guest:stops "pio"
    guest.cpu:window(true)
    guest.cpu:answer(0x22)
    guest:stops "other"
    assert.same({ "0x1004", "0x22" }, { hex(guest.cpu.rip), hex(guest.cpu.rax) })
  end)

  it("stays shut while the guest accepts none", function()
    local guest = irq.guest("cli\n out 0x30, al\n hlt")
    guest.cpu:window(true)
    guest:stops "pio"
    guest.cpu:answer()
    guest:stops "hlt"
  end)

  it("is a moment for a handler to inject at", function()
    local guest = irq.guest("sti\n nop\n" .. WAIT)
    guest.cpu:on("other", function(cpu)
      cpu:window(false)
      cpu:irq(0x30)
      return "continue"
    end)
    guest.cpu:window(true)
    guest:settles(function() return #guest.taken >= 1 end)
    assert.same({ 0x30 }, guest.taken)
  end)

  it("takes true or false, while no thread has the vCPU", function()
    local cpu = irq.guest("hlt").cpu
    helper.raises("cpu:window: true or false expected, got nil", function() cpu:window() end)
    cpu:start()
    helper.raises("vCPU 0 is started", function() cpu:window(true) end)
    helper.raises("vCPU 0 is started", function() cpu.blocking = {} end)
    cpu:join()
    cpu:close()
    helper.raises("closed vcpu", function() cpu:window(true) end)
  end)
end)

helper.kvm("cpu.blocking", function()
  -- The instruction behind STI is one that this host's KVM does not know.
  it("ends where a handler skips the instruction behind STI, and where RIP is moved", function()
    local guest = helper.guest { source = "sti\n emms\n out 0x30, al\n hlt" }
    local cpu = guest.cpu
    local exit = guest:run { until_rip = 0x1001 }
    if exit.kind == "debug" then exit = guest:run { until_rip = 0x1003 } end
    if exit.kind ~= "instruction" then pending("this host's KVM runs it: " .. tostring(exit)) end
    assert.is_true(cpu.blocking.sti)
    cpu.rip = cpu.rip
    assert.is_true(cpu.blocking.sti)
    local state = cpu:state()
    cpu.rip = 0x1003
    assert.is_false(cpu.blocking.sti)
    assert.is_true(cpu:set_state(state))
    assert.is_true(cpu.blocking.sti)
    cpu:on("instruction", function() return "skip" end)
    assert.equal("debug", guest:run({ until_rip = 0x1003 }).kind)
    assert.is_false(cpu.blocking.sti)
    cpu.blocking = { mov_ss = true } -- one of the script's own stays
    cpu.rip = 0x1005
    assert.is_true(cpu.blocking.mov_ss)
  end)

  it("is read and written", function()
    local cpu = irq.guest("hlt").cpu
    assert.same({ sti = false, mov_ss = false, nmi = false }, cpu.blocking)
    for _, name in ipairs { "sti", "mov_ss", "nmi" } do
      cpu.blocking = { [name] = true }
      for other, on in pairs(cpu.blocking) do assert.equal(other == name, on) end
    end
    cpu.blocking = cpu.blocking
    assert.is_true(cpu.blocking.nmi)
    cpu.blocking = {}
    assert.same({ sti = false, mov_ss = false, nmi = false }, cpu.blocking)
  end)

  it("holds NMIs up until IRET", function()
    local guest = irq.guest("nop\n out 0x30, al\n pushf\n push cs\n push word on\n iret\n"
      .. " on: nop\n" .. WAIT)
    guest.cpu.blocking = { nmi = true }
    guest.cpu:nmi()
    guest:stops "pio"
    assert.same({ {}, true }, { guest.taken, guest.cpu.blocking.nmi })
    guest.cpu:answer()
    guest:settles(function() return #guest.taken >= 1 end)
    assert.same({ { 2 }, false }, { guest.taken, guest.cpu.blocking.nmi })
  end)

  it("refuses what is no flag", function()
    local cpu = irq.guest("hlt").cpu
    helper.raises("cpu.blocking: a table of options expected, got number",
      function() cpu.blocking = 1 end)
    helper.raises("a table of flags expected, got nil", function() cpu.blocking = nil end)
    helper.raises("cpu.blocking: unknown option 'smi'; the options are mov_ss, nmi, sti",
      function() cpu.blocking = { smi = true } end)
    helper.raises("cpu.blocking: nmi: true or false expected, got number",
      function() cpu.blocking = { nmi = 1 } end)
  end)
end)

helper.kvm("cpu:extint", function()
  it("hands KVM a vector for LINT0", function()
    if split == 0 then pending "this host's KVM has no split irqchip" return end
    local guest = irq.guest("sti\n" .. WAIT, { vm = { irqchip = "split" } })
    local cpu = guest.cpu
    cpu.apic.lvt_lint0 = 0x700 -- ExtINT
    assert.is_true(cpu:extint(8))
    helper.refused("busy", "vCPU 0 has a PIC's vector waiting already", cpu:extint(9))
    guest:settles(function() return #guest.taken >= 1 end)
    assert.same({ 8 }, guest.taken)
    assert.is_true(cpu:extint(0x70))
    guest:settles(function() return #guest.taken >= 2 end)
    assert.same({ 8, 0x70 }, guest.taken)
  end)

  -- KVM would make the caller wait until the guest leaves HLT.
  it("is refused while a thread has the vCPU", function()
    if split == 0 then pending "this host's KVM has no split irqchip" return end
    local guest = irq.guest("hlt", { vm = { irqchip = "split" } })
    local cpu = guest.cpu
    assert(cpu:start())
    helper.raises("vCPU 0 is started, and its thread has it", function() cpu:extint(8) end)
    assert(guest.vm:stop())
    assert.is_true(cpu:extint(8))
  end)

  it("needs a split controller, and a vector", function()
    local cpu = irq.guest("hlt").cpu
    helper.raises("cannot hand vCPU 0 a PIC's vector: that needs irqchip 'split'",
      function() cpu:extint(8) end)
    helper.raises("cpu:extint: vector: a whole number from 0 to 0xff expected, got 256",
      function() cpu:extint(256) end)
  end)
end)

helper.kvm("cpu:finish", function()
  it("does the rest of the instruction, and nothing more", function()
    local guest = helper.guest { source = "in al, 0x30\n inc ax\n hlt" }
    local cpu = guest.cpu
    assert.is_true(cpu:finish()) -- nothing is under way
    guest:stops "pio"
    helper.raises("cannot finish the instruction of vCPU 0: answer its exit first",
      function() cpu:finish() end)
    cpu:answer(0x22)
    assert.is_true(cpu:finish())
    assert.same({ "0x1002", "0x22" }, { hex(cpu.rip), hex(cpu.rax) })
    guest:stops "hlt"
    assert.equal("0x23", hex(cpu.rax))
  end)

  it("gives the further exits of an instruction", function()
    local guest = helper.guest { source = "rep outsb\n hlt" }
    local cpu = guest.cpu
    cpu.rsi, cpu.rcx, cpu.rdx = 0x2000, 2, 0x30
    guest.ram:write(0x2000, "ab")
    assert.equal(("a"):byte(), guest:stops("pio").value)
    cpu:answer()
    local exit = cpu:finish()
    while exit == true do -- where KVM exits for each element by itself
      exit = guest:stops "pio"
    end
    assert.same({ "pio", ("b"):byte() }, { exit.kind, exit.value })
    assert.equal(("b"):byte(), guest:stops("pio").value) -- it is open
    cpu:answer()
    assert.is_true(cpu:finish())
    guest:stops "hlt"
  end)

  it("does an access again that has found memory", function()
    local guest = helper.guest { source = "mov al, [fs:0]\n hlt" }
    local cpu, more = guest.cpu, helper.keep(luna.buffer "4K")
    cpu.fs.base = 0x200000
    more:u8(0, 0x5a)
    guest:stops "fault"
    assert(guest.vm.default:map(more, 0x200000))
    cpu:retry()
    assert.is_true(cpu:finish())
    assert.equal("0x5a", hex(cpu.rax))
    guest:stops "hlt"
  end)
end)
