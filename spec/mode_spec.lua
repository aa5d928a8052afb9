-- SPDX-License-Identifier: MIT
-- The modes in which a vCPU begins, the exceptions of those that have a system area, and that area.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains, hex = helper.contains, luna.hex

helper.kvm("mode real", function()
  it("is the default, with 16-bit code and all segments at 0", function()
    local guest = helper.guest { source = "hlt" }
    local cpu = helper.keep(guest.vm:vcpu { rip = 0x1000 })
    for _, segment in ipairs { "cs", "ds", "es", "fs", "gs", "ss" } do
      assert.equal("0x0", hex(cpu[segment].base))
      assert.equal("0x0", hex(cpu[segment].selector))
      assert.equal("0xffff", hex(cpu[segment].limit))
    end
    assert.equal("0x0", hex(luna.u64.band(cpu.cr0, 1)))
    assert.is_nil(cpu.system)
  end)

  it("has a stack and interrupt vectors", function()
    local guest = helper.guest { rsp = 0x3000, source = [[
      push word 0x1234
      int 0x40
      hlt
      handler:
      mov cx, 7
      iret]] }
    guest.ram:u16(4 * 0x40, 0x1000 + 6)
    guest:stops "hlt"
    assert.equal(0x1234, guest.ram:u16(0x2ffe))
    assert.equal("0x7", hex(guest.cpu.rcx))
    assert.equal("0x2ffe", hex(guest.cpu.rsp))
  end)
end)

helper.kvm("mode reset", function()
  it("begins 16 bytes below 4 GiB", function()
    local guest = helper.guest { mode = "reset", source = "nop" }
    local exit = guest:stops "fault"
    assert.same({ 0xfffffff0, "x" }, { exit.gpa, exit.access })
    local rom = helper.keep(luna.buffer "4K")
    rom:write(0xff0, helper.code("mov ax, 0x5a\n hlt", 16, 0))
    assert(guest.vm:map_space(0, rom, 0, 0xfffff000, 0x1000, "r-x"))
    guest.cpu:retry()
    guest:stops "hlt"
    assert.equal("0x5a", hex(guest.cpu.rax))
  end)
end)

helper.kvm("mode protected", function()
  it("has flat 32-bit segments and no paging", function()
    local guest = helper.guest { mode = "protected", size = "2M", source = [[
      mov eax, 0x11223344
      mov [0x1ffffc], eax
      push eax
      hlt]] }
    guest:stops "hlt"
    assert.equal(0x11223344, guest.ram:u32(0x1ffffc))
    assert.equal(0x11223344, guest.ram:u32(0x7ffc))
    assert.equal("0x1", hex(luna.u64.band(guest.cpu.cr0, luna.u64 "0x80000001")))
  end)
end)

helper.kvm("mode long", function()
  it("has 64-bit registers and the first 4 GiB one to one", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rax, 0x123456789abcdef0
      mov r15, rax
      shr r15, 4
      push r15
      mov ebx, 0xc0000000
      mov [rbx], rax
      hlt]] }
    local far = helper.keep(luna.buffer "4K")
    assert(guest.vm:map_space(0, far, 0, 0xc0000000, 0x1000, "rwx"))
    guest:stops "hlt"
    assert.equal("0x123456789abcdef0", hex(far:u64(0)))
    assert.equal("0x123456789abcdef", hex(guest.ram:u64(0x7ff8)))
  end)

  it("has a page fault above 4 GiB", function()
    local guest = helper.guest { mode = "long", source = "mov rbx, 0x100000000\n mov al, [rbx]" }
    local exit = guest:stops "exception"
    assert.same({ 14, 0 }, { exit.vector, exit.error_code })
    assert.equal("0x100000000", hex(exit.address))
  end)
end)

helper.kvm("mode user", function()
  it("runs in ring 3 and may use ports", function()
    local guest = helper.guest { mode = "user", source = [[
      mov ecx, cs
      push rcx
      out 0x10, al
      mov dx, 0xffff
      out dx, al]] }
    assert.equal(0x10, guest:stops("pio").port)
    assert.equal("0x3", hex(luna.u64.band(guest.cpu.rcx, 3)))
    assert.equal(hex(guest.cpu.rcx), hex(guest.ram:u64(0x7ff8)))
    guest.cpu:answer()
    assert.equal(0xffff, guest:stops("pio").port)
  end)

  it("keeps its hands off the system area", function()
    local guest = helper.guest { mode = "user", source = "mov al, [rbx]\n out 0x10, al" }
    for _, offset in ipairs { 0, 0x1000, 0x6000, 0xffff } do
      local address = guest.cpu.system + offset
      guest.cpu.rip, guest.cpu.rbx = 0x1000, address
      local exit = guest:stops "exception"
      assert.same({ 14, 5 }, { exit.vector, exit.error_code })
      assert.equal(hex(address), hex(exit.address))
    end
    guest.ram:write(0x1000, helper.code("mov [rbx], al", 64, 0x1000))
    guest.cpu.rip = 0x1000
    assert.equal(7, guest:stops("exception").error_code)
    -- Its neighbours in the same 2 MiB are memory like any other.
    guest.cpu.rip, guest.cpu.rbx = 0x1000, guest.cpu.system - 1
    assert.equal(guest.cpu.system - 1, guest:stops("fault").gpa)
  end)
end)

helper.kvm("an exception", function()
  local cases = {
    { "ud2", 6, "#UD", 0 },
    { "div ecx", 0, "#DE", 0 },
    { "hlt", 13, "#GP", 0 },
    { "mov rax, cr0", 13, "#GP", 0 },
    { "mov rbx, 0x8000000000000000\n test: mov al, [rbx]", 13, "#GP", 0, 10 },
    { "mov rbx, 0x123456789000\n test: mov [rbx], al", 14, "#PF", 6, 10, "0x123456789000" },
    { "syscall", 6, "#UD", 0 },
  }
  for _, case in ipairs(cases) do
    local source, vector, name, code, offset, address = (table.unpack or unpack)(case)
    it(("by %q in ring 3 stops at the instruction"):format(source:match "[^\n]*$"), function()
      local guest = helper.guest { mode = "user", source = source }
      for i, register in ipairs { "rax", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r15" } do
        guest.cpu[register] = luna.u64(0x11111111 * i, 0x22222222)
      end
      local exit = guest:stops "exception"
      assert.same({ vector, code, name }, { exit.vector, exit.error_code, exit.name })
      assert.equal(hex(0x1000 + (offset or 0)), hex(exit.rip))
      assert.equal(address, exit.address and hex(exit.address))
      contains(name .. ", error code 0x" .. code, tostring(exit))
      for i, register in ipairs { "rax", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r15" } do
        assert.equal(("0x%x22222222"):format(0x11111111 * i), hex(guest.cpu[register]))
      end
      assert.equal("0x3", hex(luna.u64.band(guest.cpu.cs.selector, 3)))
    end)
  end

  it("is over when the guest goes on elsewhere", function()
    local guest = helper.guest { mode = "user", source = [[
      ud2
      push rax
      pop rcx
      ud2
      mov dl, [rbx]
      out 0x10, al]] }
    guest.cpu.rbx, guest.cpu.rax = luna.u64 "0x7000000000", 99
    assert.equal("#UD", guest:stops("exception").name)
    guest.cpu.rip = guest.cpu.rip + 2
    assert.equal("0x1004", hex(guest:stops("exception").rip))
    assert.equal("0x63", hex(guest.cpu.rcx))
    guest.cpu.rip = guest.cpu.rip + 2
    assert.equal("#PF", guest:stops("exception").name)
    assert.equal("#PF", guest:stops("exception").name) -- again, as nothing has changed
    guest.ram:u8(0x2000, 0xab)
    guest.cpu.rbx = 0x2000
    guest:stops "pio"
    assert.equal("0xab", hex(luna.u64.band(guest.cpu.rdx, 0xff)))
  end)

  it("by int3 stops behind the instruction", function()
    local guest = helper.guest { mode = "user", source = "int3\n out 0x10, al" }
    local exit = guest:stops "exception"
    assert.same({ 3, "#BP" }, { exit.vector, exit.name })
    assert.equal("0x1001", hex(exit.rip))
    guest:stops "pio"
  end)

  for _, mode in ipairs { "protected", "long" } do
    it("in mode " .. mode .. " stops at the instruction, with the stack as it was", function()
      local guest = helper.guest { mode = mode, source = "nop\n ud2\n mov cl, 3\n hlt" }
      local exit = guest:stops "exception"
      assert.same({ 6, 0 }, { exit.vector, exit.error_code })
      assert.equal("0x1001", hex(exit.rip))
      assert.equal("0x8000", hex(guest.cpu.rsp))
      guest.cpu.rip = guest.cpu.rip + 2
      guest:stops "hlt"
      assert.equal("0x3", hex(guest.cpu.rcx))
    end)
  end

  it("has its error code in ring 0 too", function()
    local guest = helper.guest { mode = "long", source = "mov eax, 0x100\n mov ds, eax\n hlt" }
    local exit = guest:stops "exception"
    assert.same({ 13, 0x100, "#GP" }, { exit.vector, exit.error_code, exit.name })
  end)

  it("leaves a device on the port of the stubs alone", function()
    local guest = helper.guest { mode = "user", source = "out 0xf4, al\n ud2" }
    local device = helper.recorder()
    guest.vm:pio(0, 0x100, device)
    guest.cpu.rax = 0x42
    assert.equal("#UD", guest:stops("exception").name)
    assert.same({ "w f4 1 0x42" }, device.log)
  end)
end)

helper.kvm("the system area", function()
  it("is mapped by the library where no place is named, and goes with the vCPU", function()
    local vm = helper.keep(luna.vm())
    local first = helper.keep(vm:vcpu { mode = "long" })
    local second = helper.keep(vm:vcpu { mode = "user" })
    assert.equal(0, first.system % 0x10000)
    assert.truthy(first.system < 0xfec00000)
    assert.not_equal(first.system, second.system)
    assert.equal(first.system, vm.default:find(first.system + 0xffff).gpa)
    assert.equal(2, luna.live().buffer)
    first:close()
    assert.is_nil(vm.default:find(second.system + 0x10000))
    assert.equal(1, luna.live().buffer)
    second:close()
    assert.same({}, vm.default:regions())
  end)

  it("goes around what is mapped or trapped", function()
    local vm = helper.keep(luna.vm())
    local ram = helper.keep(luna.buffer "64K")
    assert(vm:map_space(0, ram, 0, 0xfebf0000, 0x1000, "rwx"))
    vm:mmio(0xfebe8000, 0x10, helper.recorder())
    assert.equal(0xfebd0000, helper.keep(vm:vcpu { mode = "protected" }).system)
  end)

  for _, mode in ipairs { "protected", "long", "user" } do
    it("lies at the named place in mode " .. mode, function()
      local guest = helper.guest { mode = mode, system = 0x20000, source = "ud2" }
      assert.equal(0x20000, guest.cpu.system)
      assert.equal(1, #guest.vm.default:regions())
      assert.not_equal(("\0"):rep(0x10000), guest.ram:read(0x20000, 0x10000))
      assert.equal(("\0"):rep(0x1000), guest.ram:read(0x1f000, 0x1000))
      assert.equal(("\0"):rep(0x1000), guest.ram:read(0x30000, 0x1000))
      assert.equal("#UD", guest:stops("exception").name)
    end)
  end

  it("must be aligned, above 0 and in writable memory", function()
    local vm = helper.keep(luna.vm())
    local ram = helper.keep(luna.buffer "256K")
    assert(vm:map_space(0, ram, 0, 0, 0x20000, "rwx"))
    assert(vm:map_space(0, ram, 0x20000, 0x20000, 0x10000, "r-x"))
    local function at(system, text)
      helper.raises(text, function() vm:vcpu { mode = "long", system = system } end)
    end
    at(0x18000, "cannot put a system area at gpa 0x18000: it must be a multiple of 0x10000")
    at(0, "cannot put a system area at gpa 0x0: it must be a multiple of 0x10000")
    at(2 ^ 32, "below 4 GiB")
    at(0x20000, "its 0x10000 bytes must lie in one writable region of space 0")
    at(0x30000, "its 0x10000 bytes must lie in one writable region of space 0")
    at(0.5, "vm:vcpu: system: a whole number from 0")
    assert.equal(0, luna.live().vcpu)
  end)
end)

helper.kvm("the options of a vCPU", function()
  it("are checked", function()
    local vm = helper.keep(luna.vm())
    local function with(options, text)
      helper.raises(text, function() vm:vcpu(options) end)
    end
    with({ mode = "virtual" }, "vm:vcpu: mode: 'real', 'protected', 'long', 'user' or 'reset' "
      .. 'expected, got "virtual"')
    with({ mode = 3 }, "expected, got number")
    with({ rip = "0x1000" }, "vm:vcpu: rip: an integer expected, got 0x1000")
    with({ rsp = 1.5 }, "vm:vcpu: rsp: an integer expected, got 1.5")
    with({ bits = 16 }, "vm:vcpu: unknown option 'bits'; the options are cpuid, mode, registers, "
      .. "rip, rsp, system, wait")
    with("real", "vm:vcpu: a table of options expected, got string")
  end)

  it("take 64-bit values for rip and rsp", function()
    local vm = helper.keep(luna.vm())
    local top = luna.u64 "0xfffffffffffffff0"
    local cpu = helper.keep(vm:vcpu { mode = "long", rip = top, rsp = top })
    assert.equal("0xfffffffffffffff0", hex(cpu.rip))
    assert.equal("0xfffffffffffffff0", hex(cpu.rsp))
  end)

  it("number the vCPUs from 0", function()
    local vm = helper.keep(luna.vm())
    assert.equal(0, helper.keep(vm:vcpu()).id)
    assert.equal(1, helper.keep(vm:vcpu()).id)
  end)
end)
