-- SPDX-License-Identifier: MIT
-- luna.disasm, cpu:instruction, and the instruction in the texts of exits.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64, hex = luna.u64, luna.hex

local _, _, reason = luna.disasm "\x90"
local missing = reason == "unsupported"

-- A test that needs capstone.
local function cit(name, body)
  it(name, function()
    if missing then pending "the capstone library is not installed" end
    body()
  end)
end

describe("luna.disasm", function()
  cit("gives the instructions of each width", function()
    local texts = {
      [16] = { "mov ax, 0x1234", "add byte ptr [bx + si], al" },
      [32] = { "mov eax, 0x1234" }, [64] = { "mov eax, 0x1234" },
    }
    for bits, expected in pairs(texts) do
      local list = assert(luna.disasm("\xb8\x34\x12\0\0", { bits = bits }))
      for i, text in ipairs(expected) do assert.equal(text, list[i].text) end
      assert.equal(#expected, #list)
    end
  end)

  cit("gives addresses, sizes and bytes", function()
    local code = helper.code("mov rax, [rbx + 8]\n nop\n call 0x2000", 64, 0x1000)
    local list = luna.disasm(code, { bits = 64, address = 0x1000 })
    assert.equal(3, #list)
    local at = 0x1000
    local joined = ""
    for _, one in ipairs(list) do
      assert.equal(hex(at), hex(one.address))
      assert.equal(one.size, #one.bytes)
      at, joined = at + one.size, joined .. one.bytes
    end
    assert.equal(code, joined)
    assert.equal("call 0x2000", list[3].text)
    assert.equal("0x1000: 48 8b 43 08     mov rax, qword ptr [rbx + 8]\n"
      .. "0x1004: 90              nop\n0x1005: e8 f6 0f 00 00  call 0x2000", tostring(list))
    assert.equal("0x1004: 90  nop", tostring(list[2]))
  end)

  cit("takes linear addresses beyond 2^53", function()
    local list = luna.disasm("\xeb\xfe", { bits = 64, address = u64 "0xffffffff80001000" })
    assert.equal("jmp 0xffffffff80001000", list[1].text)
    assert.equal("0xffffffff80001000", hex(list[1].address))
  end)

  cit("stops after a count, and has 16 bits as luna.asm", function()
    local list = luna.disasm("\x40\x41\x42", { count = 2 })
    assert.same({ "inc ax", "inc cx" }, { list[1].text, list[2].text })
    assert.equal(2, #list)
    assert.equal(0, #luna.disasm "")
    assert.equal("", tostring(luna.disasm ""))
  end)

  cit("names bytes that are no instruction", function()
    local list = luna.disasm("\x06\x90\x0f", { bits = 64 })
    assert.same({ "db 0x06", "nop", "db 0x0f" }, { list[1].text, list[2].text, list[3].text })
    assert.equal("\x06", list[1].bytes)
  end)

  it("refuses wrong arguments", function()
    helper.raises("luna.disasm: a string of bytes expected, got nil", function() luna.disasm() end)
    helper.raises("bits: 16, 32 or 64 expected, got 8",
      function() luna.disasm("", { bits = 8 }) end)
    helper.raises("address: an integer expected, got x",
      function() luna.disasm("", { address = "x" }) end)
    helper.raises("luna.disasm: count", function() luna.disasm("", { count = -1 }) end)
    helper.raises("unknown option 'size'", function() luna.disasm("", { size = 1 }) end)
  end)

  local without = { env = { LUNAVISOR_CAPSTONE = "/nonexistent" } }

  it("is unsupported without the library", function()
    local output = helper.child([[
      local luna = require "lunavisor"
      print(luna.disasm "\x90")
      print(luna.disasm "\x90")
    ]], without)
    local line = "nil\tcannot disassemble without the capstone library (/nonexistent: cannot open "
      .. "shared object file: No such file or directory); install the package 'libcapstone-dev' "
      .. "and build lunavisor with it\tunsupported"
    assert.equal(line .. "\n" .. line, output)
  end)

  it("is unsupported with a library that is another", function()
    local output = helper.child([[
      print(require("lunavisor").disasm "\x90")
    ]], { env = { LUNAVISOR_CAPSTONE = "libc.so.6" } })
    helper.contains("\tunsupported", output)
    helper.contains("(it is version 0, and lunavisor was built for ", output)
  end)
end)

helper.kvm("the instruction at rip", function()
  local function at(mode, source, options)
    options = options or {}
    options.mode, options.source = mode, source
    return helper.guest(options)
  end

  local sources = {
    real = "mov ax, [bx + 2]", protected = "mov eax, [ebx + 2]", long = "mov rax, [rbx + 2]",
    user = "mov rax, [rbx + 2]",
  }
  local texts = {
    real = "mov ax, word ptr [bx + 2]", protected = "mov eax, dword ptr [ebx + 2]",
    long = "mov rax, qword ptr [rbx + 2]", user = "mov rax, qword ptr [rbx + 2]",
  }
  for mode, source in pairs(sources) do
    cit("has the width of mode " .. mode, function()
      local guest = at(mode, source)
      local found = guest.cpu:instruction()
      assert.equal(texts[mode], found.text)
      assert.same({ hex(0x1000), found.size }, { hex(found.address), #found.bytes })
    end)
  end

  cit("is found by the base of CS", function()
    local guest = at("reset", "hlt")
    local rom = helper.keep(luna.buffer "64K")
    guest.vm.default:map(rom, 0xffff0000)
    rom:write(0xfff0, helper.code("jmp 0xf000:0xe05b", 16, 0xfff0))
    assert.equal("0xfff0: ea 5b e0 00 f0  ljmp 0xf000:0xe05b", tostring(guest.cpu:instruction()))
  end)

  cit("is read across the end of a page", function()
    local guest = at("long", "add qword [rbx + 0x12345678], 5", { org = 0x1ffc })
    assert.equal("add qword ptr [rbx + 0x12345678], 5", guest.cpu:instruction().text)
  end)

  it("says why it cannot be read", function()
    local cpu = at("real", "hlt").cpu
    cpu.cs.base = 0x200000
    helper.refused("not_found", "linear address 0x201000 leads to gpa 0x201000, where space 0 has "
      .. "nothing mapped", cpu:instruction())
    cpu:close()
    helper.raises("attempt to use a closed vcpu", function() cpu:instruction() end)
  end)

  cit("says that there is none", function()
    helper.refused("not_found", "the bytes at 0x1000 are no instruction of 64-bit code",
      at("long", "db 0x06, 0x90").cpu:instruction())
  end)
end)

helper.kvm("the text of an exit", function()
  cit("ends with the instruction that failed", function()
    local exit = helper.guest { mode = "user", source = "nop\n ud2" }:stops "exception"
    assert.equal("exception (#UD, error code 0x0) at rip 0x1001: ud2", tostring(exit))
    exit = helper.guest { mode = "protected", source = "mov al, [0x40000000]" }:stops "fault"
    assert.equal("fault (read of 1 byte at gpa 0x40000000, which no region allows) at rip 0x1000: "
      .. "mov al, byte ptr [0x40000000]", tostring(exit))
  end)

  cit("ends with the instruction at which it was stopped", function()
    local guest = helper.guest { source = "again: jmp again" }
    local exit = guest:run { timeout = 0.02 }
    assert.equal("timeout at rip 0x1000: jmp 0x1000", tostring(exit))
    guest.cpu:interrupt()
    assert.equal("interrupted at rip 0x1000: jmp 0x1000", tostring(guest:run()))
    assert.equal("timeout at rip 0x1000", tostring(exit)) -- the vCPU has gone on
  end)

  it("says why the instruction cannot be read", function()
    local exit = helper.guest { source = "jmp 0xf000:5", size = "512K" }:stops "fault"
    assert.equal("fault (execute at gpa 0xf0005, which no region allows) at rip 0x5: linear "
      .. "address 0xf0005 leads to gpa 0xf0005, where space 0 has nothing mapped", tostring(exit))
  end)

  it("has the instruction of a triple fault", function()
    local guest = helper.guest { mode = "long", source = "ud2" }
    guest.cpu.idtr.limit = 0
    -- Some processors come out of it as after RESET.
    assert.matches("^shutdown %(triple fault%) at rip 0x%x+: %l",
      tostring(guest:stops "shutdown"))
  end)

  it("is short where the guest is fine", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    assert.matches("^pio %(write of 1 byte at port 0x10, value 0x0%) at rip 0x100%d$",
      tostring(guest:stops "pio"))
    guest.cpu:answer()
    assert.equal("hlt at rip 0x1003", tostring(guest:stops "hlt"))
  end)

  it("has nothing of an instruction behind a write", function()
    local guest = helper.guest { mode = "protected", source = "mov [0x40000000], al\n nop" }
    assert.equal("fault (write of 1 byte at gpa 0x40000000, value 0x0, which no region allows)",
      (tostring(guest:stops "fault"):gsub(" at rip 0x%x+$", "")))
  end)

  it("has the bytes where there is no capstone", function()
    local output = helper.child([[
      local luna = require "lunavisor"
      local vm, ram = luna.vm(), luna.buffer "64K"
      vm:map_space(0, ram, 0)
      ram:write(0x1000, "\x0f\x0b")
      local cpu = vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 }
      print(cpu:run { timeout = 10 })
      print(select(3, cpu:instruction()))
    ]], { env = { LUNAVISOR_CAPSTONE = "/nonexistent" } })
    assert.equal("exception (#UD, error code 0x0) at rip 0x1000: bytes 0f 0b"
      .. (" 00"):rep(13) .. "\nunsupported", output)
  end)
end)
