-- SPDX-License-Identifier: MIT
-- Interrupt controllers inside KVM: lines, messages, routes, eventfds, their state. A VM with all
-- of them takes 15 ms to close, so that most of this is done with LAPICs alone.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex = luna.hex

local features = luna.probe().features or {}
local SPLIT, KERNEL = { irqchip = "split" }, { irqchip = "kernel" }
local APIC = 0xfee00000
-- Takes interrupts until port 0x30 is written: a HLT would wait inside KVM.
local SPIN = "sti\n mov cx, 9000\n count: loop count\n cli\n out 0x30, al\n"

local function with(name, feature, body)
  helper.kvm(name, function()
    if (features[feature] or 0) == 0 then
      it("can be made", function() pending("this host's KVM has no " .. feature) end)
    else
      body()
    end
  end)
end

with("a VM with a split controller", "split_irqchip", function()
  it("takes messages to its LAPICs", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    assert.is_true(guest.vm:msi(APIC, 0x41))
    assert.is_true(guest.cpu:irq(0x92))
    assert.is_nil(guest.cpu.irq_waiting)
    guest:stops "pio"
    assert.same({ 0x92, 0x41 }, guest.taken)
  end)

  it("takes none where the LAPIC is off or absent", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    assert.is_false(guest.vm:msi(APIC + 0x9000, 0x41))
    guest.cpu.apic.svr = 0xff
    assert.is_false(guest.vm:msi(APIC, 0x41))
    assert.is_false(guest.cpu:irq(0x41))
    guest:stops "pio"
    assert.same({}, guest.taken)
  end)

  it("sends a message for a line that is routed to one", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    helper.raises("cannot set interrupt line 5: it has no route",
      function() guest.vm:irq(5, true) end)
    assert.is_true(guest.vm:route { { line = 5, address = APIC, data = 0x65 },
      { line = 900, address = luna.u64(APIC), data = 0x66 } })
    assert.is_true(guest.vm:irq(5, true))
    assert.is_true(guest.vm:irq(5, 0))
    assert.is_true(guest.vm:irq(900, 1))
    guest:stops "pio"
    assert.same({ 0x66, 0x65 }, guest.taken)
    assert.is_true(guest.vm:route {})
    helper.raises("it has no route", function() guest.vm:irq(5, true) end)
  end)

  it("tells the end of a level interrupt", function()
    local LEVEL = 0xc000 -- trigger mode level, assert
    local guest = irq.guest(SPIN, { vm = SPLIT })
    guest.vm:route { { line = 5, address = APIC, data = LEVEL + 0x31 } }
    guest.vm:irq(5, true)
    local exit = guest:stops "eoi"
    helper.contains("eoi (vector 0x31) at rip ", tostring(exit))
    guest:stops "pio"
    assert.same({ 0x31, { 0x31 } }, { exit.vector, guest.taken })
  end)

  it("tells it on every line that can be routed so", function()
    for _, line in ipairs { 23, 24, 254 } do
      local guest = irq.guest(SPIN, { vm = SPLIT })
      guest.vm:route { { line = line, address = APIC, data = 0xc031 } }
      guest.vm:irq(line, true)
      assert.equal(0x31, guest:stops("eoi").vector)
    end
    local vm = helper.keep(luna.vm(SPLIT))
    helper.refused("unsupported", "KVM tells the end of such interrupts for lines 0 to 254 only",
      vm:route { { line = 255, address = APIC, data = 0xc031 } })
    assert.is_true(vm:route { { line = 4095, address = APIC, data = 0x31 } })
  end)

  it("carries LAPICs along to another space, and sends to where they are", function()
    local guest = irq.guest("mov al, [fs:0x80]\n out 0x31, al\n" .. SPIN, { vm = SPLIT })
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest.vm:route { { line = 3, address = APIC, data = 0x63 } }
    local cpu, apic = guest.cpu, guest.cpu.apic
    apic.tpr, apic.lvt_error = 0x40, 0x10055
    assert.is_true(guest.vm:msi(APIC, 0x50)) -- it goes along
    assert.is_true(cpu:set_space(view))
    assert.same({ 0x40, 0x10055, 0x1ff, 0x10000 },
      { apic.tpr, apic.lvt_error, apic.svr, apic.irr[2] })
    assert.equal("runnable", cpu.mp_state)
    assert.is_true(guest.vm:msi(APIC, 0x51))
    assert.is_true(guest.vm:irq(3, true))
    assert.is_true(cpu:irq(0x70))
    assert.equal(0x40, guest:stops("pio").value)
    cpu:answer()
    guest:stops "pio"
    assert.same({ 0x70, 0x63, 0x51, 0x50 }, guest.taken)
    cpu:answer()
    apic.tpr = 0x20
    cpu:set_space(0)
    assert.same({ 0x20, 0 }, { apic.tpr, apic.irr[2] })
  end)

  it("has its LAPIC where the guest moves it, and nowhere else", function()
    local guest = helper.guest { mode = "long", vm = SPLIT, source = [[
      mov ecx, 0x1b
      rdmsr
      and eax, 0xfff
      or eax, 0xfed00000
      wrmsr
      mov esi, 0xfed00000
      mov dword [rsi + 0x80], 0x30
      mov r8d, [rsi + 0x80]
      mov esi, 0xfee00000
      mov r9d, [rsi + 0x80]
      hlt ]] }
    assert.equal(0xfee00080, guest:stops "fault".gpa)
    assert.equal("0x30", hex(guest.cpu.r8))
    assert.equal("0xfed00900", hex(guest.cpu.apic_base))
    assert.equal(0x30, guest.cpu.apic.tpr)
  end)

  it("gives the next vCPU of a number a fresh LAPIC", function()
    local vm = helper.keep(luna.vm(SPLIT))
    local fresh = vm:vcpu()
    local registers = fresh.apic:get()
    irq.enable_apic(fresh)
    fresh.apic.tpr, fresh.apic.lvt_timer, fresh.mp_state = 0x30, 0x20033, "halted"
    fresh:irq(0x88)
    fresh:close()
    local again = vm:vcpu()
    assert.same({ 0, "runnable" }, { again.id, again.mp_state })
    assert.equal(registers, again.apic:get())
    local second = vm:vcpu()
    registers = second.apic:get()
    second.apic.tpr = 0x70
    second:close()
    assert.equal(registers, vm:vcpu().apic:get())
  end)

  it("blocks in a HLT, until a kick, a timeout or an interrupt", function()
    local guest = irq.guest("sti\n hlt\n out 0x30, al\n hlt", { vm = SPLIT })
    helper.within(function()
      return hex(guest:stops("timeout", { timeout = 0.01 }).rip) == "0x1002"
    end)
    assert.equal("halted", guest.cpu.mp_state)
    guest.cpu:interrupt()
    guest:stops "interrupted"
    guest.cpu:irq(0x45)
    guest:stops "pio"
    assert.same({ { 0x45 }, "runnable" }, { guest.taken, guest.cpu.mp_state })
    guest.cpu:answer()
    guest:stops("timeout", { timeout = 0.01 })
    guest.cpu:nmi()
    helper.within(function()
      guest:stops("timeout", { timeout = 0.01 })
      return #guest.taken == 2
    end)
    assert.same({ 0x45, 2 }, guest.taken)
  end)

  it("has no controllers of its own to route to, to read or to resample", function()
    local vm = helper.keep(luna.vm(SPLIT))
    helper.raises("cannot route interrupt line 1 to a pin: the VM's controllers are not in KVM",
      function() vm:route { { line = 1, chip = "ioapic", pin = 1 } } end)
    helper.raises("the VM's IOAPIC and PICs are not in KVM", function() vm:chip "ioapic" end)
    helper.refused("unsupported", "KVM resamples only with its own IOAPIC",
      vm:irqfd(1, 0, { resample = 1 }))
  end)

  it("lets an eventfd raise a line, in one space", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    guest.vm:route { { line = 30, address = APIC, data = 0x71 } }
    local event = assert(guest.vm:eventfd { port = 0x70, size = 1 })
    local irqfd = assert(guest.vm:irqfd(30, event))
    assert.equal(("irqfd (line 30, descriptor %d)"):format(event.fd), tostring(irqfd))
    helper.refused("unsupported", "1 eventfd raises lines of the VM", guest.vm:space())
    assert(event:write())
    guest:stops "pio"
    assert.same({ 0x71 }, guest.taken)
    irqfd:close()
    irqfd:close()
    assert(guest.vm:space())
    helper.refused("unsupported", "the VM has several spaces", guest.vm:irqfd(30, event.fd))
  end)

  it("lets the guest raise its own line by a doorbell", function()
    local guest = irq.guest("out 0x70, al\n wait_for_it: jmp wait_for_it", { vm = SPLIT })
    guest.vm:route { { line = 30, address = APIC, data = 0x71 } }
    assert(guest.vm:irqfd(30, assert(guest.vm:eventfd { port = 0x70, size = 1 })))
    guest.cpu.rflags = 0x202
    guest:settles(function() return #guest.taken >= 1 end)
    assert.same({ 0x71 }, guest.taken)
  end)

  it("takes no vector below 16 at its LAPICs", function()
    local guest = irq.guest("hlt", { vm = SPLIT })
    helper.raises("with vector 15", function() guest.cpu:irq(15) end)
  end)

  it("refuses what is no route", function()
    local vm = helper.keep(luna.vm(SPLIT))
    helper.raises("vm:route: entry 1: line: a whole number from 0 to 0xfff expected, got 4096",
      function() vm:route { { line = 4096, address = 0, data = 0 } } end)
    helper.raises("vm:route: entry 2: an address and data, or chip",
      function() vm:route { { line = 1, address = 0, data = 0 }, { line = 2 } } end)
    helper.raises("entry 1: data: a whole number", function()
      vm:route { { line = 1, address = 0 } }
    end)
    helper.raises("entry 1: pin: a whole number from 0 to 0x17 expected, got 24",
      function() vm:route { { line = 1, chip = "ioapic", pin = 24 } } end)
    helper.raises("entry 1: unknown option 'gsi'", function() vm:route { { gsi = 1 } } end)
    helper.raises("vm:irqfd: eventfd: a whole number", function() vm:irqfd(30, "3") end)
    local event = vm:eventfd { port = 0x90, size = 1 }
    event:close()
    helper.raises("attempt to use a closed eventfd", function() vm:irqfd(30, event) end)
    helper.raises("vm:irq: level: a whole number", function() vm:irq(1, 2) end)
    helper.raises("a list of routes expected, got nil", function() vm:route() end)
  end)
end)

with("a VM with KVM's own controllers", "irqchip", function()
  -- The PIC is masked; the IOAPIC's pin 4 leads, edge-triggered, to LAPIC 0 with vector 0x24.
  local PROGRAM = "mov al, 0xff\n out 0x21, al\n"
    .. "mov dword [gs:0], 0x18\n mov dword [gs:0x10], 0x24\n"
    .. "mov dword [gs:0], 0x19\n mov dword [gs:0x10], 0\n out 0x33, al\n"

  -- Sets up the first 8259A with vectors from 0x20 on, and nothing masked.
  local PIC = "mov al, 0x11\n out 0x20, al\n mov al, 0x20\n out 0x21, al\n mov al, 4\n"
    .. "out 0x21, al\n mov al, 1\n out 0x21, al\n mov al, 0\n out 0x21, al\n"

  it("does nothing at the 8259A's command without operation", function()
    local guest = irq.guest(PIC .. "mov al, 0x80\n out 0x20, al\n mov al, 0x40\n out 0x20, al\n"
      .. "out 0x33, al\n", { vm = KERNEL })
    guest:stops "pio"
    local rotates = guest.vm:chip("pic_primary"):byte(12) -- rotate_on_auto_eoi
    assert.equal(1, rotates)
  end)

  it("acknowledges by the read behind an 8259A's poll command, at either port", function()
    local guest = irq.guest(PIC .. "out 0x33, al\n mov al, 0x0c\n out 0x20, al\n in al, 0x21\n"
      .. "mov bl, al\n in al, 0x21\n mov bh, al\n out 0x34, al\n", { vm = KERNEL })
    if guest.vm.accel ~= "soft" then return pending "KVM's 8259A has no bit 7 in its answer" end
    guest:stops "pio"
    guest.vm:irq(4, true)
    guest.cpu:answer()
    guest:stops "pio"
    assert.equal("0x84", hex(luna.u64.band(guest.cpu.rbx, 0xffff)))
    assert.equal(0x10, (guest.vm:chip("pic_primary"):byte(4))) -- in service
  end)

  it("takes lines, and keeps the state of its controllers", function()
    local guest = irq.guest(PROGRAM .. SPIN, { vm = KERNEL })
    local vm, cpu = guest.vm, guest.cpu
    cpu.gs.base, cpu.gs.limit = 0xfec00000, 0xfffff
    local before = vm:chip "ioapic"
    guest:stops "pio"
    cpu:answer()
    local after = vm:chip "ioapic"
    assert.is_true(before ~= after)
    assert.is_true(vm:chip("ioapic", before))
    assert.equal(before, vm:chip "ioapic")
    assert.is_true(vm:chip("ioapic", after))
    assert.is_true(vm:irq(4, true))
    assert.is_true(vm:irq(4, false))
    guest:stops "pio"
    assert.same({ 0x24 }, guest.taken)
    for _, name in ipairs { "pic_primary", "pic_secondary" } do
      assert.is_true(vm:chip(name, vm:chip(name)))
    end

    -- The same pin by a line of another number.
    assert.is_true(vm:route { { line = 70, chip = "ioapic", pin = 4 },
      { line = 71, chip = "pic", pin = 9 } })
    helper.raises("cannot set interrupt line 4: it has no route", function() vm:irq(4, 1) end)
    cpu:answer()
    cpu.rip, guest.taken[1] = 0x1000 + #helper.code(PROGRAM, 16, 0x1000), nil
    vm:irq(70, true)
    vm:irq(70, false)
    guest:stops "pio"
    assert.same({ 0x24 }, guest.taken)

    helper.refused("unsupported", "cannot make a further space", vm:space())
    helper.raises("vm:chip: 'ioapic'", function() vm:chip "apic" end)
    helper.raises("a state is a string of 512 bytes", function() vm:chip("ioapic", "") end)
  end)

  it("can have a PIT, or is refused by name", function()
    local vm, message, code = luna.vm { irqchip = "kernel", pit = true }
    if vm then
      helper.keep(vm)
      assert.truthy(features.pit2 > 0)
    else
      helper.refused("unsupported", "a PIT (KVM_CREATE_PIT2)", vm, message, code)
    end
  end)
end)

helper.kvm("the options of luna.vm", function()
  it("are checked", function()
    helper.raises("luna.vm: irqchip: 'none', 'split' or 'kernel' expected, got pic",
      function() luna.vm { irqchip = "pic" } end)
    helper.raises("luna.vm: pit: true or false expected, got number",
      function() luna.vm { pit = 1 } end)
    helper.raises("a PIT in KVM: that needs KVM's own IOAPIC",
      function() luna.vm { irqchip = "split", pit = true } end)
    helper.raises("luna.vm: apic_frequency: a whole number from 16000000",
      function() luna.vm { irqchip = "split", apic_frequency = 1e6 } end)
    helper.raises("cannot change the frequency of the LAPIC timers: the VM was made without",
      function() luna.vm { apic_frequency = 1e9 } end)
  end)
end)
