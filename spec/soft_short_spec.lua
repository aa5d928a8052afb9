-- SPDX-License-Identifier: MIT
-- 16-bit code of the software CPU, whose registers, addresses and stack pointer are kept as 16
-- bits: the other halves stay, offsets and the stack wrap, limits hold. A loop that is long enough
-- to become machine code comes out as arithmetic says.

local luna = require "lunavisor"
local soft = require "spec.support.soft"
local hex = luna.hex

local UPPER = { eax = 0x1111, ebx = 0x2222, ecx = 0x3333, edx = 0x4444, esi = 0x5555, ebp = 0x6666 }

local function start(source, registers)
  local guest = soft.guest { mode = "real", source = source }
  for name, value in pairs(registers) do guest.cpu[name] = value end
  return guest
end

local function low(value)
  return value % 0x10000
end

local function xor(a, b)
  local result, bit = 0, 1
  while bit < 0x10000 do
    if a % 2 ~= b % 2 then result = result + bit end
    a, b, bit = math.floor(a / 2), math.floor(b / 2), bit * 2
  end
  return result
end

soft.block("16-bit code of the software CPU", function()
  it("comes out as arithmetic says when it is hot, and leaves upper halves alone", function()
    local rounds = 5000
    local registers = { rsi = 0x55552000, rsp = 0x77778000 }
    for name, upper in pairs(UPPER) do
      local wide = "r" .. name:sub(2)
      registers[wide] = registers[wide] or upper * 0x10000
    end
    registers.rcx = registers.rcx + rounds
    local guest = start([[
      next: add ax, cx
      xor bx, ax
      mov dx, bx
      and dx, 0x0fff
      add dl, cl
      mov [si + 0x10], dx
      add [si + 0x12], dx
      sub word [si + 0x14], 3
      push ax
      pop bp
      call sum
      dec cx
      jnz next
      hlt
      sum: add ax, [si + 0x12]
      cmp ax, bp
      je none
      inc di
      none: ret]], registers)
    local ax, bx, dx, sum, third, di = 0, 0, 0, 0, 0, 0
    for cx = rounds, 1, -1 do
      ax = low(ax + cx)
      bx = xor(bx, ax)
      dx = bx % 0x1000
      dx = dx - dx % 0x100 + (dx + cx) % 0x100
      sum, third = low(sum + dx), low(third - 3)
      registers.rbp = ax
      ax = low(ax + sum)
      if ax ~= registers.rbp then di = low(di + 1) end
    end
    guest:stops "hlt"
    local cpu = guest.cpu
    assert.same({ hex(0x11110000 + ax), hex(0x22220000 + bx), "0x33330000", hex(0x44440000 + dx),
      hex(0x66660000 + registers.rbp), hex(di), "0x55552000", "0x77778000" },
      { hex(cpu.rax), hex(cpu.rbx), hex(cpu.rcx), hex(cpu.rdx), hex(cpu.rbp), hex(cpu.rdi),
        hex(cpu.rsi), hex(cpu.rsp) })
    assert.same({ dx, sum, third },
      { guest.ram:u16(0x2010), guest.ram:u16(0x2012), guest.ram:u16(0x2014) })
  end)

  it("jumps by what a comparison of 16 bits says, whatever the other halves are", function()
    -- SI: a bit for each condition that holds, of jumps behind CMP, TEST and DEC
    local lines = {}
    for i, jump in ipairs { "b", "e", "be", "s", "l", "le" } do
      lines[#lines + 1] = ("cmp ax, bx\n j%s c%d\n xor si, %d\n c%d:"):format(jump, i, 2 ^ i, i)
      lines[#lines + 1] = ("test ax, bx\n jn%s t%d\n xor si, %d\n t%d:"):format(jump, i,
        2 ^ (i + 6), i)
    end
    lines[#lines + 1] = "dec dx\n jnz d1\n xor si, 1\n d1:"
    lines[#lines + 1] = "dec dx\n js d2\n xor si, 0x4000\n d2: hlt"
    local guest = start(table.concat(lines, "\n "), { rax = 0x7fff8001, rbx = 0x80000001,
      rdx = 0x50001, rsi = 0 })
    guest:stops "hlt"
    -- 8001h and 1: neither below nor equal; less, and the difference is negative; the AND is 1
    assert.equal(hex(2 ^ 1 + 2 ^ 2 + 2 ^ 3 + 1), hex(guest.cpu.rsi))
  end)

  it("wraps its stack and its offsets at 64 KiB", function()
    local guest = start([[
      mov ax, 0x1234
      push ax
      pop bx
      push word 0x5678
      mov bp, 0xffff
      mov si, 1
      mov cx, [bp + si - 2]
      pop dx
      hlt]], { rsp = 0x10000 })
    guest:stops "hlt"
    local cpu = guest.cpu
    assert.same({ "0x1234", "0x5678", "0x5678", "0x10000" },
      { hex(cpu.rbx), hex(cpu.rcx), hex(cpu.rdx), hex(cpu.rsp) })
  end)

  local function faults(source, vector)
    local guest = start("jmp begin\n handler: hlt\n begin: " .. source, { rsp = 0x8000 })
    guest.ram:u16(4 * vector, 0x1002)
    return guest:run().kind
  end

  it("faults where an access goes over the end of its segment", function()
    for source, vector in pairs {
      ["mov si, 0xffff\n mov ax, [si]"] = 13,
      ["mov bp, 0xffff\n add [bp], ax"] = 12,
      ["mov sp, 0xffff\n pop ax"] = 12,
      ["mov sp, 0xffff\n ret"] = 12,
    } do
      assert.equal("hlt", faults(source, vector), source)
    end
  end)

  it("shuts down where the frame of an interrupt goes over the end of the stack", function()
    for sp, kind in pairs { [1] = "shutdown", [3] = "shutdown", [5] = "shutdown", [7] = "hlt" } do
      assert.equal(kind, faults(("mov sp, %d\n int 3"):format(sp), 3), sp)
    end
    assert.equal("shutdown", faults("mov sp, 1\n push ax", 12))
  end)
end)
