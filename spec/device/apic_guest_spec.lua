-- SPDX-License-Identifier: MIT
-- LAPICs and I/O APIC in Lua under guests, whose KVM has none: timers, IPIs among two vCPUs, start
-- of the second. FS of these real-mode guests reaches the page at 0xfee00000.

local buses = require "lunavisor.device.models.apic_bus"
local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local luna = require "lunavisor"

local HANDLERS = { [0x40] = 0x2000, [0x51] = 0x2100, [0x52] = 0x2200 }

local function reach(cpu)
  cpu.fs.base, cpu.fs.limit = luna.u64 "0xfee00000", 0xfffff
end

-- A guest on a bus with handlers by vector; one vCPU, or with `second` its source too.
local function make(source, handlers, options)
  options = options or {}
  local guest = helper.guest { source = source, vm = { clock = options.clock } }
  guest.bus = buses.new()
  guest.lapic = assert(guest.bus:vcpu(guest.cpu, { log = false, frequency = 1e6 }))
  reach(guest.cpu)
  for vector, text in pairs(handlers) do
    guest.ram:u16(4 * vector, HANDLERS[vector])
    guest.ram:write(HANDLERS[vector], helper.code(text
      .. "\n mov dword [fs:0xb0], 0\n iret", 16, HANDLERS[vector]))
  end
  guest.vm:pio(0x10, 1, { write = function(_, _, _, value) guest.vm:stop(value) end })
  if options.second then
    guest.ram:write(0x9000, helper.code(options.second, 16, options.wait and 0 or 0x9000))
    guest.other = helper.keep(guest.vm:vcpu { mode = "real", rip = 0x9000, rsp = 0x7000 })
    assert(guest.bus:vcpu(guest.other, { log = false, wait = options.wait }))
    reach(guest.other)
  end
  return guest
end

local function run(guest, kind)
  local exit = assert(guest.vm:run { timeout = 20 })
  assert.equal(kind or "stopped", exit.kind, tostring(exit))
  return exit
end

local TIMER = [[
  mov dword [fs:0xf0], 0x1ff
  mov dword [fs:0x3e0], 0xb
  mov dword [fs:0x320], %s
  mov dword [fs:0x380], 1000
  sti
  next: hlt
  cmp word [0x500], 5
  jb next
  out 0x10, al ]]

helper.kvm("LAPICs in Lua", function()
  it("wake a guest by their timers", function()
    local guest = make(TIMER:format "0x20040", { [0x40] = "inc word [0x500]" })
    run(guest)
    assert.is_true(guest.ram:u16(0x500) >= 5) -- another one may come before it says so
  end)

  it("do so by fake time, as often as it says", function()
    local clock = device.clock()
    local guest = make(TIMER:format "0x20040", { [0x40] = "inc word [0x500]" }, { clock = clock })
    for i = 0, 4 do
      local exit = run(guest, "parked")
      assert.matches("halted", tostring(exit))
      assert.equal(i, guest.ram:u16(0x500))
      clock:advance(0.0009)
      clock:advance(0.0001)
    end
    run(guest)
    assert.equal(5, guest.ram:u16(0x500))
    assert.equal(0.005, clock.now)
  end)

  it("are with cpu:run too: the script lets time pass", function()
    local clock = device.clock()
    local guest = make(TIMER:format "0x20040", { [0x40] = "inc word [0x500]" }, { clock = clock })
    for _ = 1, 5 do
      assert.equal("hlt", guest:run().kind)
      clock:advance(0.001)
    end
    assert.equal("stopped", guest:run().kind)
    assert.equal(5, guest.ram:u16(0x500))
  end)

  it("hold interrupts until the guest accepts them", function()
    local guest = make([[
      mov dword [fs:0xf0], 0x1ff
      mov dword [fs:0x300], 0x40051  ; to itself
      mov eax, [fs:0x220]            ; IRR
      mov [0x504], eax
      mov dword [fs:0x80], 0x60      ; TPR
      sti
      nop
      nop
      mov eax, [0x500]
      mov [0x508], eax
      mov dword [fs:0x80], 0
      nop
      nop
      mov al, [0x500]
      out 0x10, al ]], { [0x51] = "inc word [0x500]" })
    assert.equal(1, run(guest).value)
    assert.equal(0x20000, guest.ram:u32(0x504))
    assert.equal(0, guest.ram:u32(0x508))
    assert.equal(0, guest.lapic.TPR.level)
  end)

  it("carry IPIs between two vCPUs", function()
    local guest = make([[
      mov dword [fs:0xf0], 0x1ff
      sti
      mov dword [fs:0x310], 1 << 24
      again: cmp byte [0x520], 1
      jne again
      next: cli
      mov dword [fs:0x300], 0x51
      sti                            ; with the next instruction: nothing is missed
      hlt
      cmp word [0x500], 50
      jb next
      out 0x10, al ]], { [0x51] = "inc word [0x510]\n mov dword [fs:0x300], 0x52",
        [0x52] = "inc word [0x500]" }, { second = [[
      mov dword [fs:0xf0], 0x1ff
      mov byte [0x520], 1
      sti
      next: hlt
      jmp next ]] })
    run(guest)
    assert.equal(50, guest.ram:u16(0x500))
    assert.equal(50, guest.ram:u16(0x510))
  end)

  it("interrupt a vCPU that does not halt", function()
    local guest = make([[
      mov dword [fs:0xf0], 0x1ff
      mov dword [fs:0x310], 1 << 24
      again: cmp byte [0x520], 1
      jne again
      mov dword [fs:0x300], 0x51
      until: cmp word [0x510], 1
      jne until
      out 0x10, al ]], { [0x51] = "inc word [0x510]" }, { second = [[
      mov dword [fs:0xf0], 0x1ff
      mov byte [0x520], 1
      sti
      next: jmp next ]] })
    run(guest)
    assert.equal(1, guest.ram:u16(0x510))
  end)

  it("start the second by INIT and SIPI, and again", function()
    local guest = make([[
      mov cx, 2
      mov dword [fs:0x310], 1 << 24
      next: mov byte [0x520], 0
      mov dword [fs:0x300], 0x4500
      mov dword [fs:0x300], 0x8500
      mov dword [fs:0x300], 0x4609
      mov dword [fs:0x300], 0x4609
      again: cmp byte [0x520], 1
      jne again
      loop next
      out 0x10, al ]], {}, { wait = true, second = [[
      mov ax, cs
      mov [cs:0x100], ax
      xor ax, ax
      mov ds, ax
      inc word [0x524]
      mov byte [0x520], 1
      next: jmp next ]] })
    run(guest)
    assert.equal(2, guest.ram:u16(0x524))
    assert.equal(0x900, guest.ram:u16(0x9100))
  end)

  it("give NMIs to a vCPU that halts with interrupts off", function()
    local guest = make([[
      mov dword [fs:0xf0], 0x1ff
      mov dword [fs:0x310], 1 << 24
      again: cmp byte [0x520], 1
      jne again
      mov dword [fs:0x300], 0x400
      until: cmp word [0x510], 1
      jne until
      out 0x10, al ]], {}, { second = "mov byte [0x520], 1\n next: hlt\n jmp next" })
    guest.ram:u16(8, 0x2300)
    guest.ram:write(0x2300, helper.code("inc word [0x510]\n iret", 16, 0x2300))
    run(guest)
  end)

  it("take levels through an I/O APIC until their end", function()
    local guest = make([[
      mov dword [fs:0xf0], 0x1ff
      sti
      next: hlt
      jmp next ]], { [0x51] = "mov al, [0x500]\n inc word [0x500]\n out 0x11, al" })
    local chip = guest.bus:ioapic { log = false }
    guest.vm:attach(chip, { mmio = { main = 0xfec00000 } })
    chip.LOW[9] = 0x8051
    local left = 3
    guest.vm:pio(0x11, 1, { write = function()
      left = left - 1
      if left == 0 then chip.inputs[9]:set(false) end
    end })
    run(guest, "parked")
    chip.inputs[9]:set(true)
    run(guest, "parked")
    assert.equal(3, guest.ram:u16(0x500))
    assert.equal(0, chip.LOW[9].remote)
  end)

  it("refuse a vCPU that has one, and vCPUs of two VMs", function()
    local guest = make("hlt", {})
    helper.raises("bus:vcpu: vCPU 0 has a LAPIC already", function()
      guest.bus:vcpu(guest.cpu)
    end)
    local other = helper.guest { source = "hlt" }
    helper.raises("the vCPUs of a bus are those of one VM", function()
      guest.bus:vcpu(other.cpu)
    end)
    helper.raises("bus:vcpu: a vcpu expected, got number", function() guest.bus:vcpu(1) end)
  end)
end)

helper.kvm("LAPICs in Lua, 64 bits", function()
  it("have CR8 for the upper half of their TPR", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xfee00000
      mov dword [rbx + 0xf0], 0x1ff
      mov eax, 5
      mov cr8, rax
      mov ecx, [rbx + 0x80]
      mov dword [rbx + 0x80], 0x30
      mov rdx, cr8
      hlt ]] }
    local lapic = assert(buses.new():vcpu(guest.cpu, { log = false }))
    guest:stops "hlt"
    assert.equal(luna.u64(0x50), guest.cpu.rcx)
    assert.equal(luna.u64(3), guest.cpu.rdx)
    assert.equal(0x30, lapic.TPR.level)
  end)

  it("are held back by CR8, which is no exit when it is raised", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xfee00000
      mov dword [rbx + 0xf0], 0x1ff
      mov dword [rbx + 0x300], 0x40051
      mov eax, 6
      mov cr8, rax
      sti
      nop
      nop
      out 0x10, al
      xor eax, eax
      mov cr8, rax
      nop
      nop
      hlt ]] }
    local lapic = assert(buses.new():vcpu(guest.cpu, { log = false }))
    guest:stops "pio"
    assert.equal(0x20000, lapic.IRR[2])
    guest.cpu:answer()
    assert.equal("interrupt 0x51", guest:stops("exception").name)
    assert.equal(0x20000, lapic.ISR[2])
  end)

  it("wait for a deadline of the time-stamp counter", function()
    local guest = helper.guest { source = [[
      mov dword [fs:0xf0], 0x1ff
      mov dword [fs:0x320], 0x40040
      rdtsc
      add eax, 1000000
      adc edx, 0
      mov ecx, 0x6e0
      wrmsr
      sti
      hlt
      rdmsr
      out 0x10, al ]] }
    local lapic = assert(buses.new():vcpu(guest.cpu, { log = false }))
    reach(guest.cpu)
    guest.ram:u16(4 * 0x40, 0x2000)
    guest.ram:write(0x2000, helper.code("inc word [0x500]\n mov dword [fs:0xb0], 0\n iret", 16,
      0x2000))
    guest.vm:pio(0x10, 1, { write = function(_, _, _, value) guest.vm:stop(value) end })
    local exit = assert(guest.vm:run { timeout = 20 })
    if exit.kind == "timeout" and lapic.DEADLINE == luna.u64(0) then
      pending "this host's KVM does not hand MSRs over"
    end
    assert.equal("stopped", exit.kind, tostring(exit))
    assert.equal(0, exit.value)
    assert.equal(1, guest.ram:u16(0x500))
  end)
end)
