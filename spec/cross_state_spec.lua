-- SPDX-License-Identifier: MIT
-- Where subjects meet on one vCPU: single steps and breakpoints with interrupts and timers, saved
-- states with interrupts, breakpoints, moves and threads.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex, u64 = luna.hex, luna.u64

local features = luna.probe().features or {}
local APIC = 0xfee00000

-- A VM with a vCPU for each source, in real mode, whose code is at 0x1000 * n with its stack below.
local function machine(sources, options)
  local vm, ram, cpus = helper.keep(luna.vm(options)), helper.keep(luna.buffer "1M"), {}
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  for i, source in ipairs(sources) do
    local at = 0x1000 * i
    ram:write(at, helper.code(source, 16, at))
    cpus[i] = helper.keep(vm:vcpu { rip = at, rsp = at })
    cpus[i].rdx = i
  end
  return vm, cpus, ram
end

helper.kvm("single steps, breakpoints and interrupts", function()
  -- The rips after each of cpu:step until an exit that is no step.
  local function steps(cpu)
    local list = {}
    for _ = 1, 20 do
      local exit = assert(cpu:step { timeout = 60 })
      list[#list + 1] = hex(exit.rip)
      if exit.kind ~= "debug" then return table.concat(list, " "), exit.kind end
    end
    return table.concat(list, " ")
  end

  it("go through the handler of a vector that waits, once", function()
    local guest = irq.guest("sti\n nop\n nop\n hlt")
    guest.cpu:irq(0x33)
    assert.equal("0x1001 0x1002 0x4661 0x4663 0x4665 0x4666 0x1002 0x1003 0x1004",
      (steps(guest.cpu)))
    assert.same({ 0x33 }, guest.taken)
    assert.is_nil(guest.cpu.irq_waiting)
  end)

  it("go on behind a HLT that a vector ends", function()
    local guest = irq.guest("sti\n hlt\n nop\n cli\n hlt")
    guest.cpu:irq(0x33)
    local list, kind = steps(guest.cpu)
    helper.contains("0x4666 0x1002 0x1003", list)
    assert.same({ "hlt", 1 }, { kind, #guest.taken })
  end)

  it("meet what is posted between two of them", function()
    local guest = irq.guest("nop\n nop\n hlt")
    guest.ram:u16(2 * 4, 0x4000 + 2 * 32)
    guest.cpu:step { timeout = 60 }
    guest.cpu:nmi()
    local list = steps(guest.cpu)
    helper.contains("0x4045 0x4046 0x1001 0x1002", list)
    assert.same({ 2 }, guest.taken)
  end)

  it("stop in a handler, at a HLT with a vector to take, and behind", function()
    local guest = irq.guest("sti\n hlt\n nop\n cli\n hlt")
    local cpu, points = guest.cpu, {}
    for i, at in ipairs { 0x1001, 0x4000 + 0x33 * 32, 0x1002 } do
      local message
      points[i], message = cpu:breakpoint(at)
      if not points[i] then pending(message) end
    end
    cpu:irq(0x33)
    for i = 1, 3 do assert.equal(points[i], guest:stops("debug").breakpoint) end
    guest:stops "hlt"
    assert.same({ 0x33 }, guest.taken)
    for i = 1, 3 do assert.equal(1, points[i].hits) end
  end)

  it("and runs to an address let timers fire, which are no exits", function()
    local guest = irq.guest("l: cmp byte [0x500], 0\n je l\n mov cx, 9\n n: out 0x60, al\n"
      .. "loop n\n hlt")
    local fired = 0
    guest.vm:timer(0.001, function()
      fired = fired + 1
      if fired == 3 then guest.ram:u8(0x500, 1) end -- which the guest waits for
    end, { period = 0.001 })
    local exit = assert(guest:run { until_rip = 0x1007, max_exits = 1 })
    if exit.kind ~= "debug" then error(tostring(exit)) end
    assert.is_true(exit.reached)
    guest:stops("limit", { until_rip = 0x100e, max_exits = 5 })
    assert.equal(5, #guest.taken)
    guest:stops("debug", { until_rip = 0x100e, max_exits = 5 })
    assert.equal(9, #guest.taken)
    guest.ram:write(0x1000, helper.code("jmp $", 16, 0x1000))
    guest.cpu.rip, fired = 0x1000, 0
    helper.within(function()
      guest:stops("timeout", { timeout = 0.05, max_exits = 2 })
      return fired > 2
    end)
  end)
end)

helper.kvm("a saved state", function()
  local function guest_with(chip)
    local vm = helper.keep(luna.vm { irqchip = chip })
    local ram = helper.keep(luna.buffer "64K")
    assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
    ram:write(0x1000, helper.code("sti\n again: hlt\n jmp again", 16, 0x1000))
    return vm, helper.keep(vm:vcpu { rip = 0x1000, rsp = 0x8000 }),
      helper.keep(vm:vcpu { rip = 0x1000, rsp = 0x8000 })
  end

  for _, chip in ipairs { "split", "kernel" } do
    it("leaves a LAPIC its number, with irqchip " .. chip, function()
      if features[chip == "split" and "split_irqchip" or "irqchip"] ~= 1 then
        pending "this host's KVM has no such irqchip"
      end
      local vm, first, second = guest_with(chip)
      first.apic.svr, first.apic.tpr = 0x1ff, 0x20
      helper.within(function()
        assert.equal("timeout", first:run({ timeout = 0.01 }).kind)
        return first.mp_state == "halted"
      end)
      local id, base = second.apic.id, second.msr.apic_base
      assert.is_true(second:set_state(first:state()))
      assert.same({ id, hex(base) }, { second.apic.id, hex(second.msr.apic_base) })
      assert.same({ "halted", 0x20, 0x1ff },
        { second.mp_state, second.apic.tpr, second.apic.svr })
      assert.is_true(second:irq(0x41))
      assert.same({ 0, 2 }, { first.apic.irr[2], second.apic.irr[2] })
      assert.is_true(vm:msi(APIC, 0x42))
      assert.same({ 4, 2 }, { first.apic.irr[2], second.apic.irr[2] })

      local _, third = guest_with(chip)
      assert.is_true(third:set_state(second:state()))
      assert.same({ 2, 0 }, { third.apic.irr[2], third.apic.id })
    end)
  end

  it("has what waits for the guest, and drops what came later", function()
    local source = "sti\n mov cx, 300\n count: loop count\n halt: hlt\n jmp halt"
    local guest = irq.guest(source)
    local cpu = guest.cpu
    local clean = cpu:state()
    assert.is_true(cpu:irq(0x33) and cpu:irq(0x21) and cpu:nmi())
    local waiting = cpu:state()
    assert.equal(#clean, #waiting)
    assert.is_true(cpu:set_state(clean))
    assert.is_nil(cpu.irq_waiting)
    guest:stops "hlt"
    assert.same({}, guest.taken)
    for _ = 1, 2 do
      assert.is_true(cpu:set_state(waiting))
      assert.equal(0x33, cpu.irq_waiting)
      guest:stops "hlt"
      assert.is_nil(cpu.irq_waiting)
    end
    assert.same({ 2, 0x33, 0x21, 2, 0x33, 0x21 }, guest.taken)
    local other = irq.guest(source)
    assert.is_true(other.cpu:set_state(waiting))
    assert.equal(0x33, other.cpu.irq_waiting)
  end)

  it("has no breakpoints", function()
    local guest = irq.guest "sti\n nop\n nop\n hlt"
    local cpu = guest.cpu
    local point = cpu:breakpoint(0x1001)
    local saved = cpu:state()
    if point then
      assert.equal(point, guest:stops("debug").breakpoint)
      assert.is_true(cpu:set_state(saved))
      assert.equal(point, guest:stops("debug").breakpoint)
      point:close()
    end
    assert.is_true(cpu:set_state(saved))
    guest:stops "hlt"
  end)

  it("can be had behind an answered MSR exit, in another space and VM", function()
    local source = "mov ecx, 0xc0000103\n rdmsr\n mov ebx, eax\n hlt"
    local vm, cpus = machine({ source }, { unknown_msrs = "exit" })
    local cpu = cpus[1]
    vm:msr(0xc0000103, { read = function()
      local view = assert(vm:space())
      assert(view:map(helper.keep(luna.buffer "4K"), 0)) -- or KVM has no room for page tables
      assert(cpu:set_space(view))
      return u64(0x77)
    end })
    cpu:on("fault", function(_, exit)
      assert.equal(1, exit.space.id)
      return "stop"
    end)
    local exit = assert(cpu:run { timeout = 60 })
    assert.equal("fault", exit.kind)
    helper.raises("open", function() local _ = cpu:state() end)
    local view = vm.spaces[1]
    assert(view:map(helper.keep(luna.buffer "4K"), 0x1000))
    view:write(0x1000, vm.default:read(0x1000, 0x100))
    assert(cpu:retry())
    exit = assert(cpu:run { timeout = 60 })
    assert.same({ "hlt", "0x77" }, { exit.kind, hex(cpu.rbx) })
    local state = cpu:state()
    local other, others = machine({ source })
    others[1]:set_state(state)
    assert.same({ hex(cpu.rip), "0x77" }, { hex(others[1].rip), hex(others[1].rbx) })
    other.default:write(0x1000, "\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4")
    assert.equal("hlt", others[1]:run({ timeout = 60 }).kind)
  end)

  it("takes the place of an exit that nobody was told", function()
    local vm, cpus = machine({ "hlt\n hlt", "hlt" })
    local state = cpus[1]:state()
    assert(cpus[1]:start())
    os.execute "sleep 0.02"
    cpus[1]:join()
    assert.is_true(cpus[1]:set_state(state))
    vm.default:write(0x1000, helper.code("jmp $", 16, 0x1000))
    assert.equal("timeout", cpus[1]:run({ timeout = 0.01 }).kind)
  end)
end)
