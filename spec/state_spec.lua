-- SPDX-License-Identifier: MIT
-- cpu:state and cpu:set_state: everything comes back, on this and another vCPU, in every mode and
-- space, around open exits; what is no state is refused and changes nothing.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"

local hex, u64 = luna.hex, luna.u64

-- Changes something in each part of the state; `n` tells the changes apart.
local function scramble(cpu, n)
  cpu.rax, cpu.r15, cpu.rsp = n, n * 3, 0x8000 + 16 * n
  cpu.fs.base, cpu.cr2 = 0x1000 * n, 0x100 * n
  cpu.dr0, cpu.dr3 = 0x2000 + n, 0x3000 + n
  cpu.xmm[0], cpu.xmm[15] = { n, n + 1 }, { n + 2 }
  cpu.mxcsr, cpu.fcw = n % 2 == 0 and 0x1f80 or 0x1fa0, 0x37f
  cpu.msr.lstar, cpu.msr.kernel_gs_base = 0x4000 * n, 0x5000 * n
  cpu.st[3] = { u16 = { n, n } }
end

-- What scramble changes, and more, as text.
local function seen(cpu)
  local parts = { tostring(cpu:regs()), tostring(cpu.fs), tostring(cpu.cs), tostring(cpu.tr),
    tostring(cpu.xmm[0]), tostring(cpu.xmm[15]), tostring(cpu.st[3]), hex(cpu.msr.lstar),
    hex(cpu.msr.kernel_gs_base), tostring(cpu.gdtr) }
  return table.concat(parts, "\n")
end

local function differ(cpu, n)
  scramble(cpu, n)
  return seen(cpu)
end

helper.kvm("cpu:state", function()
  for _, mode in ipairs { "reset", "real", "protected", "long", "user" } do
    it("comes back in mode " .. mode, function()
      local cpu = helper.guest { mode = mode, source = "hlt" }.cpu
      local before = differ(cpu, 7)
      local state = cpu:state()
      assert.equal("string", type(state))
      assert.equal("lunavcpu", state:sub(1, 8))
      assert.not_equal(before, differ(cpu, 8))
      assert.is_true(cpu:set_state(state))
      assert.equal(before, seen(cpu))
      assert.is_true(cpu:set_state(state))
      assert.equal(before, seen(cpu))
    end)
  end

  it("lets a guest go on from there, again and again", function()
    local guest = helper.guest { mode = "long", source = [[
      add rax, 1
      mov [0x2000], rax
      hlt
      add rax, 0x10
      movdqu xmm0, [0x2000]
      hlt]] }
    local cpu = guest.cpu
    guest:stops "hlt"
    local state = cpu:state()
    for _ = 1, 3 do
      guest:stops "hlt"
      assert.equal("0x11", hex(cpu.rax))
      assert.equal("0x1", hex(cpu.xmm[0].u64[1]))
      assert.is_true(cpu:set_state(state))
      assert.equal("0x1", hex(cpu.rax))
      assert.equal("0x0", hex(cpu.xmm[0].u64[1]))
    end
  end)

  it("is that of another vCPU too, in another VM and space", function()
    local first = helper.guest { mode = "real", source = "inc ax\n hlt" }
    local before = differ(first.cpu, 5)
    local state = first.cpu:state()
    local other = helper.guest { mode = "real", source = "inc ax\n hlt" }
    local space = other.vm:space()
    assert(space:map(other.ram, 0, other.ram.size, "rwx"))
    assert(other.cpu:set_space(space))
    assert.is_true(other.cpu:set_state(state))
    assert.equal(before, seen(other.cpu))
    assert(other.cpu:set_space(0))
    assert.equal(before, seen(other.cpu))
    other:stops "hlt"
    assert.equal("0x6", hex(other.cpu.rax))
  end)

  it("has the writes that wait, and keeps exceptions that are to come", function()
    local guest = helper.guest { mode = "long", source = "hlt" }
    local cpu = guest.cpu
    assert(cpu:inject("#UD"))
    local state = cpu:state()
    assert.equal("#UD", guest:stops("exception").name)
    assert.is_true(cpu:set_state(state))
    assert.equal("#UD", guest:stops("exception").name)
  end)

  it("has the time-stamp counter", function()
    local cpu = helper.guest { source = "hlt" }.cpu
    local base = u64 "0x10000000000000"
    local set, message = pcall(function() cpu.msr.tsc = base end)
    if not set then
      helper.contains("this host's KVM lets guests read the host's as it is", message)
      pending "this host's KVM does not set the counter"
    end
    local state = cpu:state()
    cpu.msr.tsc = 0
    assert.is_true(u64.lt(cpu.msr.tsc, base))
    assert.is_true(cpu:set_state(state))
    assert.is_true(u64.lt(cpu.msr.tsc - base, u64 "0x1000000000"))
  end)

  it("is the same bytes until something changes", function()
    for _, chip in ipairs { "none", "split" } do
      local made, why = luna.vm { irqchip = chip }
      if not made then pending(why) end
      made:close()
      local guest = helper.guest { vm = { irqchip = chip }, source = "inc ax\n hlt\n inc ax\n hlt" }
      local cpu = guest.cpu
      if chip == "split" then
        irq.enable_apic(cpu)
        cpu.apic.lvt_timer, cpu.apic.divide, cpu.apic.initial_count = 0x10040, 0xb, 0xf0000000
      end
      guest:run { timeout = 0.05 }
      local state = cpu:state()
      assert.is_true(state == cpu:state())
      assert.is_true(cpu:set_state(state))
      assert.is_true(state == cpu:state())
      cpu.rax = cpu.rax + 1
      assert.is_false(state == cpu:state())
      assert.is_true(cpu:set_state(state))
      assert.is_true(state == cpu:state())
    end
  end)

  it("cannot be taken in the middle of an instruction", function()
    local guest = helper.guest { source = "in al, 0x60\n inc ax\n hlt" }
    local exit = guest:stops "pio"
    assert.equal("r", exit.access)
    helper.raises("cannot save vCPU 0: its pio exit is open", function() guest.cpu:state() end)
    guest.cpu:answer(0x41)
    local state = guest.cpu:state() -- the instruction is finished first
    assert.equal("0x41", hex(guest.cpu.rax))
    guest:stops "hlt"
    assert.is_true(guest.cpu:set_state(state))
    assert.equal("0x41", hex(guest.cpu.rax))
    guest:stops "hlt"
    assert.equal("0x42", hex(guest.cpu.rax))
  end)

  it("is that before an instruction that goes on with a further access", function()
    local guest = helper.guest { size = "64K", source = "inc byte [0x2000]\n mov bx, 1\n hlt" }
    local cpu, value, writes = guest.cpu, 7, 0
    assert(guest.vm.default:unmap(0x2000, 0x1000))
    guest.vm:mmio(0x2000, 0x1000, {
      read = function() cpu:stop() return value end,
      write = function(_, _, _, written) value, writes = written, writes + 1 end,
    })
    guest:stops "stopped"
    local state = cpu:state()
    assert.is_true(state == cpu:state())
    for run = 1, 2 do
      guest:stops(run == 1 and "hlt" or "stopped")
      if run == 2 then guest:stops "hlt" end
      assert.same({ 7 + run, run, "0x1" }, { u64.tonumber(value), writes, hex(cpu.rbx) })
      assert.is_true(cpu:set_state(state))
      assert.equal("0x1000", hex(cpu.rip))
    end
  end)

  it("drops an open exit when it is put back", function()
    local guest = helper.guest { source = "mov ax, 1\n hlt\n in al, 0x60\n hlt" }
    guest:stops "hlt"
    local state, rip = guest.cpu:state(), guest.cpu.rip
    guest:stops "pio"
    assert.is_true(guest.cpu:set_state(state))
    assert.equal(hex(rip), hex(guest.cpu.rip))
    assert.equal("0x1", hex(guest.cpu.rax))
    helper.raises("no open exit", function() guest.cpu:answer(1) end)
    assert.equal("pio", guest:stops("pio").kind)
    assert.equal("0x1", hex(guest.cpu.rax))
  end)

  it("can be put back by a handler", function()
    local guest = helper.guest { source = "inc bx\n out 0x10, al\n inc bx\n hlt" }
    local state, left = nil, 3
    local device = {}
    function device.write()
      left = left - 1
      if left > 0 then guest.cpu:set_state(state) end
    end
    guest.vm:pio(0x10, 1, device)
    state = guest.cpu:state()
    guest:stops "hlt"
    assert.equal(0, left)
    assert.equal("0x2", hex(guest.cpu.rbx))
  end)
end)

helper.kvm("what is no state", function()
  it("is refused, and nothing is changed", function()
    local cpu = helper.guest { mode = "long", source = "hlt" }.cpu
    local state = (differ(cpu, 3) and cpu:state())
    local before = differ(cpu, 4)
    local function refused(text, bytes)
      helper.refused("argument", text, cpu:set_state(bytes))
      assert.equal(before, seen(cpu))
    end
    refused("it has only 0 bytes", "")
    refused("it does not begin with 'lunavcpu'", ("x"):rep(4096))
    refused("its version is 2, this library reads version 1",
      state:sub(1, 8) .. "\2" .. state:sub(10))
    for _, size in ipairs { 24, 100, 1000, #state - 8, #state - 1 } do
      refused("it has " .. size .. " bytes and says " .. #state, state:sub(1, size))
    end
    refused("and says", state .. ("\0"):rep(8))
    for at = 25, #state, 701 do
      local byte = string.char((state:byte(at) + 1) % 256)
      refused("its checksum is wrong", state:sub(1, at - 1) .. byte .. state:sub(at + 1))
    end
    helper.raises("cpu:set_state: a string of cpu:state expected, got number",
      function() cpu:set_state(5) end)
    assert.is_true(cpu:set_state(state))
    assert.not_equal(before, seen(cpu))
  end)

  it("are system registers that KVM does not take", function()
    local cpu = helper.guest { mode = "long", source = "hlt" }.cpu
    local good = cpu.cr0
    cpu.cr0 = u64 "0x80000010"
    local state = cpu:state()
    cpu.cr0 = good
    local before = differ(cpu, 6)
    local ok, message, code = cpu:set_state(state)
    if ok then pending "this host's KVM takes them" end
    helper.refused("state", "cr0 bit 31 (PG) is set while bit 0 (PE) is clear", ok, message, code)
    assert.equal(before, seen(cpu))
  end)
end)
