-- SPDX-License-Identifier: MIT
-- A vCPU's LAPIC inside KVM: its registers by name, its timer, and the timer's frequency.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local u64 = luna.u64

local features = luna.probe().features or {}
local SPLIT = { irqchip = "split" }
local SPIN = "sti\n mov cx, 9000\n count: loop count\n cli\n out 0x30, al\n"

helper.kvm("a LAPIC", function()
  if (features.split_irqchip or 0) == 0 then
    it("is in KVM", function() pending "this host's KVM has no split irqchip" end)
    return
  end

  it("begins as the SDM says", function()
    local vm = helper.keep(luna.vm(SPLIT))
    local apic, second = vm:vcpu().apic, vm:vcpu().apic
    assert.same({ 0, 0x1000000, 0, 0xff, 0xffffffff, 0, 0x10000, 0x10000 },
      { apic.id, second.id, apic.tpr, apic.svr, apic.dfr, apic.initial_count, apic.lvt_timer,
        second.lvt_lint0 })
    assert.equal(0x14, apic.version % 256)
    for word = 0, 7 do
      assert.same({ 0, 0, 0 }, { apic.isr[word], apic.tmr[word], apic.irr[word] })
    end
    helper.contains("id 0x0, version 0x", tostring(apic))
    helper.raises("an apic has no field 'sixth'", function() return apic.sixth end)
  end)

  it("keeps what is written, and the guest sees it", function()
    local guest = irq.guest("mov al, [fs:0x80]\n out 0x31, al", { vm = SPLIT })
    local apic = guest.cpu.apic
    for _, name in ipairs { "lvt_lint0", "lvt_lint1", "lvt_error", "lvt_timer" } do
      apic[name] = 0x10047
      assert.equal(0x10047, apic[name])
    end
    apic.ldr, apic.divide, apic.tpr = 0x5000000, 0xb, 0x40
    assert.same({ 0x5000000, 0xb, 0x40, 4 },
      { apic.ldr, apic.divide, apic.tpr, u64.tonumber(guest.cpu.cr8) })
    assert.equal(0x40, guest:stops("pio").value)
  end)

  it("has CR8 as the upper half of its TPR", function()
    local guest = irq.guest("mov al, [fs:0x80]\n out 0x31, al\n in al, 0x31\n", { vm = SPLIT })
    local cpu, apic = guest.cpu, guest.cpu.apic
    cpu.cr8 = 6
    assert.equal(0x60, apic.tpr) -- before KVM knows of it
    assert.equal(0x60, guest:stops("pio").value)
    cpu:answer()
    assert.equal(0x60, apic.tpr)
    cpu.cr2 = 1 -- system registers wait to be written
    apic.tpr = 0x35
    assert.equal(3, u64.tonumber(cpu.cr8))
    guest:stops "pio"
    assert.equal(0x30, apic.tpr)
  end)

  it("goes out and in as a whole", function()
    local vm = helper.keep(luna.vm(SPLIT))
    local cpu, other = vm:vcpu(), helper.keep(luna.vm(SPLIT)):vcpu()
    cpu.apic.tpr, cpu.apic.lvt_error = 0x50, 0x77
    local registers = cpu.apic:get()
    assert.equal(1024, #registers)
    assert.equal(0x50, registers:byte(0x80 + 1))
    assert.is_true(other.apic:set(registers))
    assert.equal(registers, other.apic:get())
    assert.same({ 0x50, 0x77 }, { other.apic.tpr, other.apic.lvt_error })
  end)

  it("shows which vectors wait", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    local apic = guest.cpu.apic
    guest.cpu:irq(0x41)
    guest.cpu:irq(0x63)
    assert.same({ 2, 8 }, { apic.irr[2], apic.irr[3] })
    apic.irr[4] = 0x100 -- vector 0x88
    assert.equal(0x100, apic.irr[4])
    guest:stops "pio"
    assert.same({ 0x88, 0x63, 0x41 }, guest.taken)
    assert.same({ 0, 0, 0 }, { apic.irr[2], apic.irr[3], apic.irr[4] })
  end)

  it("holds back what its TPR says", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    guest.cpu.apic.tpr = 0x50
    for _, vector in ipairs { 0x4f, 0x5f, 0x60 } do guest.cpu:irq(vector) end
    guest:stops "pio"
    assert.same({ 0x60 }, guest.taken)
    assert.equal(0x80008000, guest.cpu.apic.irr[2])
  end)

  it("fires its timer's entry on demand, unless that is masked", function()
    local guest = irq.guest(SPIN, { vm = SPLIT })
    local apic = guest.cpu.apic
    assert.is_false(apic:fire_timer())
    apic.lvt_timer = 0x67
    assert.is_true(apic:fire_timer())
    guest:stops "pio"
    assert.same({ 0x67 }, guest.taken)
  end)

  it("has a timer that runs, also while the guest halts", function()
    local guest = irq.guest("mov dword [fs:0x380], 100000\n sti\n hlt\n out 0x30, al",
      { vm = SPLIT })
    guest.cpu.apic.lvt_timer, guest.cpu.apic.divide = 0x68, 0xb
    guest:stops "pio"
    assert.same({ 0x68 }, guest.taken)
  end)

  it("takes its timer along to another space", function()
    local guest = irq.guest("mov dword [fs:0x380], 20000000\n out 0x31, al\n sti\n hlt\n"
      .. " out 0x30, al", { vm = SPLIT })
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest.cpu.apic.lvt_timer, guest.cpu.apic.divide = 0x69, 0xb
    guest:stops "pio"
    guest.cpu:answer()
    assert.is_true(guest.cpu:set_space(view))
    assert.equal(20000000, guest.cpu.apic.initial_count)
    guest:stops "pio"
    assert.same({ 0x69 }, guest.taken)
  end)

  -- The guest arms it, does `first` and leaves; the script waits, does `touch`, and the guest looks
  -- for a while. What it took.
  local function one_shot(first, wait, touch)
    local guest = irq.guest("mov dword [fs:0x380], 1000000\n sti\n " .. first .. "\n out 0x31, al\n"
      .. " mov cx, 3000\n count: loop count\n out 0x30, al", { vm = SPLIT })
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest.cpu.apic.lvt_timer, guest.cpu.apic.divide = 0x6a, 0xb
    guest:stops "pio"
    guest.cpu:answer()
    local moment = luna.clock() + wait
    repeat until luna.clock() >= moment
    touch(guest.cpu, view)
    guest:stops "pio"
    return guest.taken
  end

  local touches = {
    ["a written register"] = function(cpu) cpu.apic.tpr = 0x10 end,
    ["a written page"] = function(cpu) assert(cpu.apic:set(cpu.apic:get())) end,
    ["a restored state"] = function(cpu) assert(cpu:set_state(cpu:state())) end,
    ["a move"] = function(cpu, view) assert(cpu:set_space(view)) end,
  }
  for name, touch in pairs(touches) do
    it("has a one-shot timer that fires once, whatever comes between: " .. name, function()
      assert.same({ 0x6a }, one_shot("hlt", 0, touch)) -- it has run out, and was taken
      assert.same({ 0x6a }, one_shot("nop", 0.01, touch)) -- it has run out while nobody looked
    end)
  end

  it("keeps the initial count of a timer that has run out", function()
    local guest = irq.guest("mov dword [fs:0x380], 1000\n sti\n hlt\n out 0x30, al", { vm = SPLIT })
    guest.cpu.apic.lvt_timer, guest.cpu.apic.divide = 0x6a, 0xb
    guest:stops "pio"
    guest.cpu:answer()
    guest.cpu.apic.tpr = 0x10
    assert.same({ 1000, 0 }, { guest.cpu.apic.initial_count, guest.cpu.apic.current_count })
  end)

  it("starts its timer when the initial count is written", function()
    local guest = irq.guest("sti\n hlt\n out 0x30, al", { vm = SPLIT })
    local apic = guest.cpu.apic
    apic.lvt_timer, apic.divide = 0x6b, 0xb
    apic.initial_count = 10000000
    assert.is_true(apic.current_count > 0)
    guest:stops "pio"
    assert.same({ 0x6b }, guest.taken)
  end)

  it("refuses misuse", function()
    local guest = irq.guest("hlt", { vm = SPLIT })
    local apic = guest.cpu.apic
    helper.raises("an apic has no field 'tp' that can be set; did you mean 'tpr'?",
      function() apic.tp = 1 end)
    helper.raises("cpu.apic.tpr: a whole number from 0 to 0xffffffff expected, got string",
      function() apic.tpr = "x" end)
    helper.raises("cpu.apic.irr: a word from 0 to 7 expected, got 8",
      function() return apic.irr[8] end)
    helper.raises("cpu.apic:set: a string of 1024 bytes expected, got one of 3",
      function() apic:set "abc" end)
    local none = irq.guest "hlt"
    helper.raises("cannot read the LAPIC: the VM was made without an interrupt controller",
      function() return none.cpu.apic.tpr end)
    helper.raises("cannot read the LAPIC", function() none.cpu.apic:get() end)
    guest.cpu:close()
    helper.raises("attempt to use a closed vcpu", function() return apic.tpr end)
    helper.raises("attempt to use a closed vcpu", function() apic:fire_timer() end)
  end)
end)

helper.kvm("the frequency of the LAPIC timers", function()
  it("is set before the first vCPU, in whole nanoseconds", function()
    if (features.x86_apic_bus_cycles_ns or 0) == 0 then
      local vm = helper.keep(luna.vm(SPLIT))
      return helper.refused("unsupported", "no KVM_CAP_X86_APIC_BUS_CYCLES_NS",
        vm:apic_frequency(100e6))
    end
    local vm = helper.keep(luna.vm { irqchip = "split", apic_frequency = 100e6 })
    assert.equal(100000000, vm:apic_frequency())
    assert.equal(25000000, vm:apic_frequency(25e6))
    assert.equal(15873015, vm:apic_frequency(16e6)) -- 62.5 ns are 63
    assert.equal(1000000000, vm:apic_frequency(2e9))
    vm:vcpu()
    helper.raises("KVM takes it only before the VM's first vCPU",
      function() vm:apic_frequency(50e6) end)
    helper.raises("vm:apic_frequency: hertz: a whole number", function() vm:apic_frequency(1e6) end)
    assert.is_nil(helper.keep(luna.vm()):apic_frequency())
  end)

  it("is what the timer counts with", function()
    if (features.x86_apic_bus_cycles_ns or 0) == 0 then
      pending "this host's KVM has no KVM_CAP_X86_APIC_BUS_CYCLES_NS"
    end
    -- 400,000 cycles of 50 ns are 20 ms, of 1 ns 0.4 ms.
    local function time(frequency)
      local guest = irq.guest("mov dword [fs:0x380], 400000\n sti\n hlt\n out 0x30, al",
        { vm = { irqchip = "split", apic_frequency = frequency } })
      guest.cpu.apic.lvt_timer, guest.cpu.apic.divide = 0x68, 0xb
      return guest.cpu:run { timeout = 0.010 }.kind
    end
    assert.equal("timeout", time(20e6))
  end)
end)
