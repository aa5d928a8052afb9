-- SPDX-License-Identifier: MIT
-- The software CPU at its seams: traps that meet, tasks, descriptors of long mode, devices that are
-- a string instruction's memory.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local soft = require "spec.support.soft"
local hex = luna.hex

-- Sets TF; clears it again, in five instructions that it traps behind.
local SET = "pushf\n pop ax\n or ax, 0x100\n push ax\n mov dx, ss\n popf\n"
local CLEAR = "pushf\n pop ax\n and ax, 0xfeff\n push ax\n popf\n out 0x30, al"

soft.block("a trap of the software CPU", function()
  it("of TF comes behind the SYSRET that has set it", function()
    local guest = soft.guest { mode = "long", source = [[
      mov ecx, 0xc0000080
      rdmsr
      or eax, 1
      wrmsr
      mov ecx, 0xc0000081
      xor eax, eax
      mov edx, 0x00100008
      wrmsr
      lea rcx, [rel program]
      mov r11d, 0x102
      o64 sysret
      program: nop
      nop]] }
    local exit = guest:stops "exception"
    assert.same({ "#DB", "0x23" }, { exit.name, hex(guest.cpu.cs.selector) })
    assert.equal(guest.cpu.rcx, exit.rip)
  end)

  it("that a load of SS has held back is INT1's own", function()
    local guest = soft.real(SET .. "mov ss, dx\n db 0xf1\n" .. CLEAR)
    guest:stops "pio"
    assert.same({ 1, 1, 1, 1, 1, 1 }, guest.taken)
  end)

  it("of a data breakpoint that a load of SS has held back is INT1's own", function()
    local guest = soft.real("mov eax, 0x2000\n mov dr0, eax\n mov eax, 0x70402\n mov dr7, eax\n"
      .. "mov ss, [0x2000]\n db 0xf1\n out 0x30, al")
    guest:stops "pio"
    assert.same({ 1 }, guest.taken)
  end)

  it("of a breakpoint on code comes behind a load of SS on AMD's processors alone", function()
    for vendor, name in pairs { [0x68747541] = "#DB", [0x756e6547] = "pio" } do
      local guest = soft.guest { mode = "long", source = "mov ss, ax\n nop\n out 0x30, al" }
      local cpu = guest.cpu
      cpu.cpuid[0].ebx = vendor
      cpu.rax, cpu.dr0, cpu.dr7 = 0x10, 0x1002, 0x402
      local exit = guest:run()
      assert.equal(name, exit.name or exit.kind)
    end
  end)

  it("that a load of SS has held back is the general detection's own", function()
    local guest = soft.real("mov ecx, 0x2400\n mov dr7, ecx\n" .. SET
      .. "mov ss, dx\n mov ecx, dr6\n" .. CLEAR)
    guest:stops "pio"
    assert.same({ 1, 1, 1, 1, 1, 1, 1 }, guest.taken)
  end)
end)

-- ---- Tasks and descriptors ----

local GDT = 0x6000

-- Entries of a GDT that is the vCPU's, behind those that it begins with; the first is 0x40.
local function add_descriptors(guest, list)
  local cpu, space = guest.cpu, guest.vm.default
  local old = luna.u64.tonumber(cpu.gdtr.base)
  guest.ram:write(GDT, space:read(old, 0x40))
  for i, value in ipairs(list) do guest.ram:u64(GDT + 0x38 + 8 * i, value) end
  cpu.gdtr.base, cpu.gdtr.limit = GDT, 0x3f + 8 * #list
end

soft.block("a task of the software CPU", function()
  it("goes on behind the JMP that it was left by", function()
    local guest = soft.guest { mode = "protected", source = [[
      mov ax, 0x40
      ltr ax
      jmp 0x48:0
      mov edi, 0x77
      out 0x30, al
      align 32
      mov byte [0x7000], 5
      jmp 0x40:0]] }
    add_descriptors(guest, { luna.u64 "0x0000890050000067", luna.u64 "0x0000890051000067" })
    local ram = guest.ram
    for at, value in pairs { [0x20] = 0x1020, [0x24] = 2, [0x38] = 0x7f00, [0x48] = 0x10,
      [0x4c] = 0x38, [0x50] = 0x10, [0x54] = 0x10 } do
      ram:u32(0x5100 + at, value)
    end
    guest:stops "pio"
    assert.same({ "0x77", 5 }, { hex(guest.cpu.rdi), ram:u8(0x7000) })
  end)
end)

soft.block("a descriptor of the software CPU's long mode", function()
  -- LDT and TSS whose bases are not canonical.
  local function with_base(source, type)
    local guest = soft.guest { mode = "long", source = "mov eax, 0x40\n" .. source .. "\n hlt" }
    add_descriptors(guest, { luna.u64(type) + luna.u64 "0x0000800000000067", luna.u64 "0x8000" })
    return guest:stops "exception"
  end

  it("has a canonical base, or LLDT and LTR fault", function()
    for source, type in pairs { ["lldt ax"] = "0x0000020000000000",
      ["ltr ax"] = "0x0000090000000000" } do
      local exit = with_base(source, type)
      assert.same({ "#GP", 0x40 }, { exit.name, exit.error_code })
    end
  end)

  it("leaves FS its base when IRET makes it null", function()
    local guest = soft.guest { mode = "long", source = [[
      mov ax, 0x10
      mov fs, ax
      mov ecx, 0xc0000100
      mov eax, 0x12345678
      xor edx, edx
      wrmsr
      push 0x1b
      push 0x7000
      push 2
      push 0x23
      push 0x2000
      iretq]] }
    guest.ram:write(0x2000, "\x0f\x0b") -- ud2
    guest:stops "exception"
    local fs = guest.cpu.fs
    assert.same({ "0x12345678", "0x0", "0x23" },
      { hex(fs.base), hex(fs.selector), hex(guest.cpu.cs.selector) })
  end)
end)

soft.block("a string instruction of the software CPU", function()
  it("reads a port into a device, element by element", function()
    local guest = soft.guest { mode = "protected",
      source = "mov edi, 0xd0000000\n mov ecx, 300\n mov dx, 0x43\n rep insb\n hlt" }
    local count, written = 0, 0
    guest.vm:pio(0x43, 1, { read = function()
      count = count + 1
      return count % 256
    end })
    guest.vm:mmio(0xd0000000, 4096, { write = function(_, offset, size, value)
      assert.same({ written, 1, (written + 1) % 256 }, { offset, size, value })
      written = written + 1
    end })
    guest:stops "hlt"
    assert.same({ 300, 300 }, { count, written })
    assert.equal(helper.code("hlt", 32, 0), guest.ram:read(luna.u64.tonumber(guest.cpu.rip) - 1, 1))
  end)
end)

soft.block("an instruction of more than 15 bytes", function()
  it("is fetched as far as memory is there before it is found to be too long", function()
    local start = ("\x2e"):rep(9) .. "\x67\xdb\x8c\x42" -- FISTTP, with four bytes to come
    for there, kind in pairs { [true] = "exception", [false] = "fault" } do
      local guest = soft.guest { mode = "long", source = "nop" }
      local at = 0x3000 - #start
      guest.ram:write(at, start .. "\x78\x56\x34\x12")
      guest.cpu.rip = at
      if not there then guest.vm.default:unmap(0x3000, 0x1000) end
      local exit = guest:stops(kind)
      assert.equal(there and "#GP" or "0x3000", exit.name or hex(exit.gpa))
      assert.equal(hex(at), hex(guest.cpu.rip))
    end
  end)
end)

soft.block("DR7 of the software CPU", function()
  it("has the bits that KVM keeps", function()
    local guest = soft.real("mov eax, 0xffffdfff\n mov dr7, eax\n mov eax, dr7\n out 0x30, al")
    guest:stops "pio"
    assert.equal("0xffff0fff", hex(guest.cpu.rax))
  end)
end)
