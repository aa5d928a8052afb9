-- SPDX-License-Identifier: MIT
-- What guests do and how it arrives: port and memory accesses, faults, the ways to stop.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains = helper.contains

local PORT, BASE = 0x3f8, 0xd0000000

-- A guest with a recorder on eight ports.
local function with_ports(options, values)
  local guest = helper.guest(options)
  guest.device = helper.recorder(values)
  guest.vm:pio(PORT, 8, guest.device)
  return guest
end

-- A long-mode guest with a recorder on two pages of memory.
local function with_memory(source, values)
  local guest = helper.guest { mode = "long", source = source }
  guest.device = helper.recorder(values)
  guest.vm:mmio(BASE, 0x2000, guest.device)
  return guest
end

helper.kvm("hlt", function()
  for _, mode in ipairs { "real", "protected", "long" } do
    it("ends the run in mode " .. mode, function()
      local exit = helper.guest({ mode = mode, source = "hlt" }):stops "hlt"
      assert.equal("0x1001", luna.hex(exit.rip))
      assert.equal("hlt at rip 0x1001", tostring(exit))
    end)
  end

  it("lets the next run go on behind it", function()
    local guest = helper.guest { source = "hlt\n inc ax\n hlt" }
    guest:stops "hlt"
    assert.equal("0x0", luna.hex(guest.cpu.rax))
    guest:stops "hlt"
    assert.equal("0x1", luna.hex(guest.cpu.rax))
    assert.equal(2, guest.cpu.exits)
  end)
end)

helper.kvm("port access", function()
  it("brings writes of 1, 2 and 4 bytes", function()
    local guest = with_ports { source = [[
      mov dx, 0x3f8
      mov eax, 0x81223344
      out dx, al
      inc dx
      out dx, ax
      add dx, 2
      out dx, eax
      hlt]] }
    guest:stops "hlt"
    assert.same({ "w 0 1 0x44", "w 1 2 0x3344", "w 3 4 0x81223344" }, guest.device.log)
  end)

  it("gives reads of 1, 2 and 4 bytes, and leaves the rest of the register", function()
    local guest = with_ports({ source = [[
      mov dx, 0x3f8
      mov eax, 0xaabbccdd
      in al, dx
      mov [0x2000], eax
      in ax, dx
      mov [0x2004], eax
      in eax, dx
      mov [0x2008], eax
      hlt]] }, { 0x11, 0x2222, 0xf3333333 })
    guest:stops "hlt"
    assert.same({ "r 0 1", "r 0 2", "r 0 4" }, guest.device.log)
    assert.equal(0xaabbcc11, guest.ram:u32(0x2000))
    assert.equal(0xaabb2222, guest.ram:u32(0x2004))
    assert.equal(0xf3333333, guest.ram:u32(0x2008))
  end)

  it("is an open exit where no device has the port", function()
    local guest = helper.guest { source = "out 0x10, ax\n in al, 0x11\n hlt" }
    guest.cpu.rax = 0x1234
    local exit = guest:stops "pio"
    assert.same({ 0x10, 2, "w", 0x1234 }, { exit.port, exit.size, exit.access, exit.value })
    contains("write of 2 bytes at port 0x10, value 0x1234", tostring(exit))
    assert.equal("16 4660", exit.port .. " " .. exit.value)
    assert.equal(0x10, guest:stops("pio").port) -- again, until it is answered
    guest.cpu:answer()
    exit = guest:stops "pio"
    assert.same({ 0x11, 1, "r" }, { exit.port, exit.size, exit.access })
    assert.is_nil(exit.value)
    guest.cpu:answer(0x56)
    guest:stops "hlt"
    assert.equal("0x1256", luna.hex(guest.cpu.rax))
  end)
end)

helper.kvm("string port access", function()
  local outs = {
    { "b", { "w 0 1 0x1", "w 0 1 0x2", "w 0 1 0x3", "w 0 1 0x4" }, "0x2004" },
    { "w", { "w 0 2 0x201", "w 0 2 0x403", "w 0 2 0x605", "w 0 2 0x807" }, "0x2008" },
    { "d", { "w 0 4 0x4030201", "w 0 4 0x8070605", "w 0 4 0xc0b0a09", "w 0 4 0x100f0e0d" },
      "0x2010" },
  }
  for _, mode in ipairs { "real", "protected", "long", "user" } do
    for _, case in ipairs(outs) do
      it(("brings each element of rep outs%s in mode %s"):format(case[1], mode), function()
        local guest = with_ports { mode = mode, source = ([[
          mov esi, 0x2000
          mov ecx, 4
          mov dx, 0x3f8
          rep outs%s
          out 0x10, al]]):format(case[1]) }
        guest.ram:write(0x2000, "\1\2\3\4\5\6\7\8\9\10\11\12\13\14\15\16")
        guest:stops "pio"
        assert.same(case[2], guest.device.log)
        assert.equal(case[3], luna.hex(guest.cpu.rsi))
        assert.equal("0x0", luna.hex(guest.cpu.rcx))
      end)
    end
  end

  it("follows the direction flag", function()
    local guest = with_ports { source = [[
      std
      mov si, 0x2002
      mov cx, 3
      mov dx, 0x3f8
      rep outsb
      hlt]] }
    guest.ram:write(0x2000, "\1\2\3")
    guest:stops "hlt"
    assert.same({ "w 0 1 0x3", "w 0 1 0x2", "w 0 1 0x1" }, guest.device.log)
  end)

  -- KVM hands up to 1024 elements over at once: one more begins a second exit.
  for mode, count in pairs { real = 20, user = 1500 } do
    it("stores each element of rep insb in mode " .. mode, function()
      local guest = helper.guest { mode = mode, source = ([[
        mov edi, 0x2000
        mov ecx, %d
        mov dx, 0x3f8
        rep insb
        out 0x10, al]]):format(count) }
      local sent, asked, other = {}, 0, 0
      guest.vm:pio(PORT, 1, { read = function(_, offset, size)
        asked = asked + 1
        if offset ~= 0 or size ~= 1 then other = other + 1 end
        sent[asked] = string.char(asked * 7 % 251)
        return asked * 7 % 251
      end })
      guest:stops "pio"
      assert.same({ count, 0 }, { asked, other })
      assert.equal(table.concat(sent) .. "\0", guest.ram:read(0x2000, count + 1))
    end)
  end

  it("stores each element of rep insd", function()
    local guest = with_ports({ mode = "long", source = [[
      mov edi, 0x2001
      mov ecx, 3
      mov dx, 0x3fb
      rep insd
      hlt]] }, { 0x81020304, 0, 0xffffffff })
    guest:stops "hlt"
    assert.same({ "r 3 4", "r 3 4", "r 3 4" }, guest.device.log)
    assert.equal("\0\4\3\2\x81\0\0\0\0\255\255\255\255\0", guest.ram:read(0x2000, 14))
  end)
end)

helper.kvm("memory access of a device", function()
  it("brings writes of 1, 2, 4 and 8 bytes", function()
    local guest = with_memory [[
      mov ebx, 0xd0000000
      mov rax, 0x8899aabbccddeeff
      mov [rbx], al
      mov [rbx + 3], ax
      mov [rbx + 8], eax
      mov [rbx + 0x10], rax
      hlt]]
    guest:stops "hlt"
    assert.same({ "w 0 1 0xff", "w 3 2 0xeeff", "w 8 4 0xccddeeff", "w 10 8 0x8899aabbccddeeff" },
      guest.device.log)
  end)

  it("gives reads of 1, 2, 4 and 8 bytes", function()
    local guest = with_memory([[
      mov ebx, 0xd0000000
      mov rax, 0x7777777777777777
      mov al, [rbx]
      mov [0x2000], rax
      mov ax, [rbx + 3]
      mov [0x2008], rax
      mov eax, [rbx + 8]
      mov [0x2010], rax
      mov rax, [qword 0xd0000000]
      mov [0x2018], rax
      hlt]], { 0x81, 0x8182, 0x81828384, luna.u64 "0x8182838485868788" })
    guest:stops "hlt"
    assert.same({ "r 0 1", "r 3 2", "r 8 4", "r 0 8" }, guest.device.log)
    assert.equal("7777777777777781", luna.u64.key(guest.ram:u64(0x2000)))
    assert.equal("7777777777778182", luna.u64.key(guest.ram:u64(0x2008)))
    assert.equal("0000000081828384", luna.u64.key(guest.ram:u64(0x2010)))
    assert.equal("8182838485868788", luna.u64.key(guest.ram:u64(0x2018)))
  end)

  it("has numbers up to 4 bytes and u64 for 8", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      mov eax, 0xffffffff
      mov [rbx], eax
      mov [rbx], rax
      hlt]] }
    local values = {}
    guest.vm:mmio(BASE, 8, { write = function(_, _, _, value) values[#values + 1] = value end })
    guest:stops "hlt"
    assert.equal("number", type(values[1]))
    assert.equal(4294967295, values[1])
    assert.equal(type(luna.u64(0)), type(values[2]))
    assert.equal("0x1fffffffe", luna.hex(values[2] + values[2]))
  end)

  it("takes a number for a read of 8 bytes", function()
    local guest = with_memory("mov ebx, 0xd0000000\n mov rax, [rbx]\n hlt", { 2 ^ 53 })
    guest:stops "hlt"
    assert.equal("0x20000000000000", luna.hex(guest.cpu.rax))
  end)

  it("arrives in parts where it crosses a page", function()
    local guest = with_memory([[
      mov ebx, 0xd0000ffe
      mov eax, 0x44332211
      mov [rbx], eax
      mov rax, [rbx]
      hlt]], { 0x5566, 0x112233445566 })
    guest:stops "hlt"
    assert.same({ "w ffe 2 0x2211", "w 1000 2 0x4433", "r ffe 2", "r 1000 6" }, guest.device.log)
    assert.equal("0x1122334455665566", luna.hex(guest.cpu.rax))
  end)

  it("goes to memory and to the device where it lies in both", function()
    local guest = helper.guest { mode = "long", size = "64K", source = [[
      mov ebx, 0xfffe
      mov eax, 0x44332211
      mov [rbx], eax
      mov ecx, [rbx]
      hlt]] }
    guest.device = helper.recorder { 0x8765 }
    guest.vm:mmio(0x10000, 0x1000, guest.device)
    guest:stops "hlt"
    assert.same({ "w 0 2 0x4433", "r 0 2" }, guest.device.log)
    assert.equal(0x2211, guest.ram:u16(0xfffe))
    assert.equal("0x87652211", luna.hex(guest.cpu.rcx))
  end)

  it("arrives in parts of 8 bytes from a store of 16", function()
    local guest = with_memory [[
      mov ebx, 0xd0000000
      movdqu xmm0, [0x2000]
      movdqu [rbx + 4], xmm0
      hlt]]
    guest.ram:write(0x2000, "\1\2\3\4\5\6\7\8\9\10\11\12\13\14\15\16")
    guest:stops "hlt"
    assert.same({ "w 4 8 0x807060504030201", "w c 8 0x100f0e0d0c0b0a09" }, guest.device.log)
  end)

  it("is a read and then a write from a locked instruction", function()
    local guest = with_memory([[
      mov ebx, 0xd0000000
      mov eax, 5
      lock xadd [rbx], eax
      xchg eax, [rbx + 4]
      hlt]], { 0x10, 0x20 })
    guest:stops "hlt"
    assert.same({ "r 0 4", "w 0 4 0x15", "r 4 4", "w 4 4 0x10" }, guest.device.log)
    assert.equal("0x20", luna.hex(guest.cpu.rax))
  end)

  it("works from ring 3", function()
    local guest = helper.guest { mode = "user", source = [[
      mov ebx, 0xd0000000
      mov rax, [rbx + 8]
      mov [rbx + 0x18], ax
      out 0x10, al]] }
    guest.device = helper.recorder { luna.u64 "0xfedcba9876543210" }
    guest.vm:mmio(BASE, 0x1000, guest.device)
    guest:stops "pio"
    assert.same({ "r 8 8", "w 18 2 0x3210" }, guest.device.log)
    assert.equal("0xfedcba9876543210", luna.hex(guest.cpu.rax))
  end)
end)

helper.kvm("a fault", function()
  for _, mode in ipairs { "protected", "long", "user" } do
    it("is a read of a hole in mode " .. mode .. ", which takes a value", function()
      local guest = helper.guest { mode = mode, source = [[
        mov ebx, 0xd0000123
        mov eax, [ebx]
        out 0x10, al]] }
      local exit = guest:stops "fault"
      assert.same({ 0xd0000123, "r", 4 }, { exit.gpa, exit.access, exit.size })
      assert.is_nil(exit.value)
      contains("read of 4 bytes at gpa 0xd0000123, which no region allows", tostring(exit))
      guest.cpu:answer(0x89abcdef)
      guest:stops "pio"
      assert.equal("0x89abcdef", luna.hex(guest.cpu.rax))
    end)
  end

  it("is a write of a hole, with the value", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      mov byte [rbx], 0x9c
      mov rax, 0xfedcba9876543210
      mov [rbx], rax
      hlt]] }
    local exit = guest:stops "fault"
    assert.same({ BASE, "w", 1, 0x9c }, { exit.gpa, exit.access, exit.size, exit.value })
    guest.cpu:answer()
    exit = guest:stops "fault"
    assert.same({ BASE, "w", 8 }, { exit.gpa, exit.access, exit.size })
    assert.equal("0xfedcba9876543210", luna.hex(exit.value))
    guest.cpu:answer()
    guest:stops "hlt"
  end)

  it("can be tried again after memory was mapped", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000008
      mov dword [rbx], 0x12345678
      mov eax, [rbx + 0x1000]
      hlt]] }
    guest:stops "fault"
    local more = helper.keep(luna.buffer "8K")
    assert(guest.vm:map_space(0, more, 0, BASE, 0x1000, "rwx"))
    guest.cpu:retry()
    assert.equal(0x12345678, more:u32(8))
    guest:stops "fault"
    more:u32(0x1008, 0xcafe)
    helper.raises("no region of space 0 allows it", function() guest.cpu:retry() end)
    assert(guest.vm:map_space(0, more, 0x1000, BASE + 0x1000, 0x1000, "rwx"))
    guest.cpu:retry()
    guest:stops "hlt"
    assert.equal("0xcafe", luna.hex(guest.cpu.rax))
  end)

  for _, mode in ipairs { "protected", "long", "user" } do
    it("is an execution of a hole in mode " .. mode, function()
      local guest = helper.guest { mode = mode, source = ([[
        mov eax, 0xd0000010
        jmp %s]]):format(mode == "protected" and "eax" or "rax") }
      local exit = guest:stops "fault"
      assert.same({ BASE + 0x10, "x", 0 }, { exit.gpa, exit.access, exit.size })
      assert.equal("0xd0000010", luna.hex(exit.rip))
      assert.is_nil(exit.value)
      contains("execute at gpa 0xd0000010", tostring(exit))
      helper.raises("map memory there and retry", function() guest.cpu:answer(0) end)
      local more = helper.keep(luna.buffer "4K")
      more:write(0x10, helper.code("mov ecx, 77\n out 0x10, al", 32, 0))
      assert(guest.vm:map_space(0, more, 0, BASE, 0x1000, "rwx"))
      guest.cpu:retry()
      guest:stops "pio"
      assert.equal("0x4d", luna.hex(guest.cpu.rcx))
    end)
  end

  it("is not left open by an answer: only one is taken", function()
    local guest = helper.guest { mode = "long", source = "mov eax, [0x200000]\n hlt" }
    guest:stops "fault"
    guest.cpu:answer(1)
    helper.raises("has no open exit to answer", function() guest.cpu:answer(2) end)
    guest:stops "hlt"
    assert.equal("0x1", luna.hex(guest.cpu.rax))
  end)
end)

helper.kvm("a guest", function()
  it("that faults three times over ends with shutdown", function()
    local guest = helper.guest { mode = "protected", source = "ud2" }
    guest.cpu.idtr.limit = 0
    contains("shutdown (triple fault)", tostring(guest:stops "shutdown"))
  end)

  for _, mode in ipairs { "real", "user" } do
    it(("that never stops in mode %s runs out of time"):format(mode), function()
      local guest = helper.guest { mode = mode, source = "again: inc ecx\n jmp again" }
      local begin = luna.clock()
      local exit = guest:run { timeout = 0.1 }
      local took = luna.clock() - begin
      assert.equal("timeout", exit.kind)
      assert.truthy(took >= 0.1 and took < 30, took)
      local count
      guest:settles(function()
        count = guest.cpu.rcx
        return luna.u64.lt(0, count)
      end)
      guest:settles(function() return luna.u64.lt(count, guest.cpu.rcx) end) -- where it was
    end)
  end

  it("that sends without end runs out of time", function()
    local guest = with_ports { source = "mov dx, 0x3f8\n again: out dx, al\n jmp again" }
    guest:settles(function() return #guest.device.log > 10 end)
  end)

  it("does not begin where no time is left", function()
    local guest = helper.guest { source = "inc ax\n hlt" }
    assert.equal("timeout", guest:run({ timeout = 0 }).kind)
    assert.equal("0x0", luna.hex(guest.cpu.rax))
    guest:stops "hlt"
  end)

  it("is interrupted once by an interrupt before the run", function()
    local guest = helper.guest { source = "hlt" }
    guest.cpu:interrupt()
    guest.cpu:interrupt()
    guest:stops "interrupted"
    assert.equal("0x1000", luna.hex(guest.cpu.rip))
    guest:stops "hlt"
  end)

  it("is interrupted once by an interrupt of a handler", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, { write = function() guest.cpu:interrupt() end })
    guest:stops "interrupted"
    guest:stops "hlt"
  end)
end)
