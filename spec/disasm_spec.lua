-- SPDX-License-Identifier: MIT
-- luna.disasm, cpu:instruction, and the instruction in the texts of exits.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64, hex = luna.u64, luna.hex

local _, _, reason = luna.disasm "\x90"
local missing = reason == "unsupported"

-- A test that needs the disassembler.
local function cit(name, body)
  it(name, function()
    if missing then pending "this build has no disassembler" end
    body()
  end)
end

describe("luna.disasm", function()
  cit("gives the instructions of each width", function()
    local texts = {
      [16] = { "mov ax, 0x1234", "add [bx + si], al" },
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
    assert.equal("0x1000: 48 8b 43 08     mov rax, [rbx + 8]\n"
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

  -- What it prints luna.asm reads, and makes the same bytes of.
  local texts = {
    [16] = {
      "mov ax, 0x1234", "mov al, [bx + si - 2]", "mov word [bp + 0x100], 5", "inc byte [0x7c00]",
      "mov eax, [dword 0x12345678]", "mov ebx, [eax + ecx*4]", "mov ax, [es:di]", "push dword 9",
      "jmp 0xf000:0xe05b", "call dword 8:0x1000", "jmp word far [bx]", "call dword far [bx]",
      "o32 ret", "retf 4", "iretd", "a32 movsb", "rep fs movsw", "o32 lgdt [bx]", "xlatb",
      "lds si, [bx]", "in al, dx", "out 0x43, al", "int 0x10", "loop 0x1000", "enter 0x10, 1",
    },
    [32] = {
      "mov eax, [ebx + esi*8 + 0x1000]", "add dword [ecx], -1", "mov eax, [0x40000000]",
      "mov fs, ax", "mov eax, cr0", "mov dr7, eax", "lock cmpxchg8b qword [esi]", "aam 0x10",
      "pushad", "jmp 8:0x1000", "jmp dword far [eax]", "bound eax, [ebx]", "les edi, [ebp + 8]",
      "retf",
      "push word 9", "mov ax, [bx + si]", "fld tword [eax]", "fstp qword [esp + 4]",
      "fadd st0, st1",
    },
    [64] = {
      "mov rax, [rbx + 8]", "mov byte [r13 + r14*2], 9", "mov r8d, [rax]", "movzx eax, byte [rdi]",
      "movsx rax, word [rsi]", "movsxd rax, dword [rsi]", "mov rax, 0x1122334455667788",
      "mov eax, [qword 0x1122334455667788]", "mov rax, [gs:0x28]", "mov eax, [fs:rbx - 0x80]",
      "call 0x2000", "jnz 0x1000",
      "jmp qword [rax*8 + 0x1000]", "jmp qword far [rbx]", "ret 8", "iretq", "o64 sysret", "swapgs",
      "rep stosq", "repne scasb", "fs lodsb", "lock add [rax], ecx", "shl qword [rax], cl",
      "crc32 eax, dword [rbx]", "popcnt rax, rcx", "cmpxchg16b oword [rdi]", "xsave64 [rax]",
      "invpcid rax, [rbx]", "invlpg [rax]", "lidt [rsp + 6]", "prefetcht0 [rax]",
      "movaps xmm0, [rax]", "movss xmm9, dword [rbp - 4]", "movd xmm1, dword [rax]",
      "cvtsi2sd xmm0, qword [rax]", "pinsrw xmm1, word [rax], 3", "aesenc xmm1, xmm2",
      "vaddps ymm0, ymm1, [rax]", "vbroadcastss ymm3, dword [rax]",
      "vpgatherdd ymm0, dword [rax + ymm1*4], ymm2",
      "andn eax, ebx, [rcx]", "vaddps zmm0 {k1} {z}, zmm30, dword [rax] {1to16}",
      "vaddpd zmm0, zmm1, zmm2, {rz-sae}", "vmovdqu32 [rax + 0x40] {k2}, zmm17", "kmovw k1, eax",
      "vcmpps k2 {k1}, zmm1, zmm2, {sae}, 0x10",
    },
  }
  for bits, list in pairs(texts) do
    for _, text in ipairs(list) do
      cit(("reads as luna.asm does, with %d bits: %s"):format(bits, text), function()
        local code = helper.code(text, bits, 0x1000)
        local found = luna.disasm(code, { bits = bits, address = 0x1000 })
        assert.same({ text, #code }, { found[1].text, found[1].size })
      end)
    end
  end

  cit("knows how Intel's processors read what compilers do not make", function()
    local cases = {
      { "48 8d 05 10 00 00 00", 64, "lea rax, [rel 0x1017]" }, -- to nasm the number is absolute
      { "80 3d f0 ff ff ff 09", 64, "cmp byte [rel 0xff7], 9" },
      { "66 0f 84 00 00 00 00", 64, "jz 0x1007" }, -- the prefix means nothing there
      { "0f b9 c1", 64, "ud1 eax, ecx" }, { "f3 90", 64, "pause" },
      { "f3 0f 1e fa", 64, "endbr64" }, { "67 e3 00", 64, "jecxz 0x1003" },
      { "2e 8b 00", 64, "mov eax, [rax]" }, { "eb fe", 16, "jmp 0x1000" },
      { "e9 00 f0", 16, "jmp 3" }, -- RIP has 16 bits
    }
    for _, case in ipairs(cases) do
      local code = case[1]:gsub("(%x%x) ?", function(byte)
        return string.char(tonumber(byte, 16))
      end)
      local found = luna.disasm(code, { bits = case[2], address = 0x1000, count = 1 })[1]
      assert.same({ case[3], #code }, { found.text, found.size })
    end
  end)

  cit("has none that no processor with KVM has", function()
    local xeon_phi, cr6 = "\x62\xf1\x78\x08\x58\xc1", "\x0f\x22\x70"
    assert.equal("db 0x62", luna.disasm(xeon_phi, { bits = 64 })[1].text)
    assert.equal("db 0x0f", luna.disasm(cr6, { bits = 64 })[1].text)
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
  for mode, source in pairs(sources) do
    cit("has the width of mode " .. mode, function()
      local guest = at(mode, source)
      local found = guest.cpu:instruction()
      assert.equal(source, found.text)
      assert.same({ hex(0x1000), found.size }, { hex(found.address), #found.bytes })
    end)
  end

  cit("is found by the base of CS", function()
    local guest = at("reset", "hlt")
    local rom = helper.keep(luna.buffer "64K")
    guest.vm.default:map(rom, 0xffff0000)
    rom:write(0xfff0, helper.code("jmp 0xf000:0xe05b", 16, 0xfff0))
    assert.equal("0xfff0: ea 5b e0 00 f0  jmp 0xf000:0xe05b", tostring(guest.cpu:instruction()))
  end)

  cit("is read across the end of a page", function()
    local guest = at("long", "add qword [rbx + 0x12345678], 5", { org = 0x1ffc })
    assert.equal("add qword [rbx + 0x12345678], 5", guest.cpu:instruction().text)
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
      .. "mov al, [0x40000000]", tostring(exit))
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
end)

helper.block("names of addresses", function()
  local SOURCE = "start: call put\n hlt\nput: push rbp\n mov rbp, rsp\n.again: jmp .again"

  -- A vCPU at `start`, with the labels as the VM's symbols.
  local function guest()
    local one = helper.guest { mode = "long", source = SOURCE }
    one.vm.symbols = select(2, luna.asm(SOURCE, { bits = 64, org = 0x1000 }))
    return one
  end

  cit("are in cpu:disasm, which marks the instruction at rip", function()
    local one = guest()
    local cpu, symbols = one.cpu, one.vm.symbols
    assert.equal("start:\n=> 0x1000: e8 01 00 00 00  call 0x1006 <put>\n"
      .. "   0x1005: f4              hlt\nput:\n   0x1006: 55              push rbp",
      tostring(cpu:disasm(3)))
    local list = cpu:disasm(2, symbols.put)
    assert.same({ "put", "put+0x1" }, { list[1].symbol, list[2].symbol })
    assert.equal("put:\n0x1006: 55        push rbp\n0x1007: 48 89 e5  mov rbp, rsp", tostring(list))
    assert.equal(8, #cpu:disasm())
    assert.equal("0x1000 start: e8 01 00 00 00  call 0x1006 <put>", tostring(cpu:instruction()))
    assert.equal("put.again", cpu:disasm(1, symbols["put.again"])[1].target)
  end)

  cit("are none without symbols; what is no instruction is data", function()
    local one = helper.guest { mode = "long", source = "nop\ndb 0x06\nhlt" }
    assert.equal("=> 0x1000: 90  nop\n   0x1001: 06  db 0x06\n   0x1002: f4  hlt",
      tostring(one.cpu:disasm(3)))
  end)

  cit("end where nothing can be read", function()
    local one = helper.guest { mode = "long", source = "nop" }
    one.ram:write(0xffffe, "\x90\x90")
    assert.equal(2, #one.cpu:disasm(5, 0xffffe))
    helper.refused("not_found", "0x100000", one.cpu:disasm(1, 0x100000))
  end)

  it("are what vm:symbol says, and in the texts of exits and backtraces", function()
    local one = guest()
    local vm, cpu = one.vm, one.cpu
    assert.equal("put+0x1", vm:symbol(0x1007))
    assert.is_nil(vm:symbol(0xfff))
    local exit
    helper.within(function()
      exit = cpu:run { timeout = 0.01 }
      return luna.hex(cpu.rip) == "0x100a"
    end)
    helper.contains("at rip 0x100a <put.again>", tostring(exit))
    if not missing then
      helper.contains("#0  rip 0x100a  rbp 0x7ff0  put.again  jmp 0x100a\n#1  rip 0x1005",
        tostring(cpu:backtrace()))
      helper.contains("start+0x5  hlt", tostring(cpu:backtrace()))
    end
  end)

  it("come from an image that has some", function()
    local image = require "spec.support.image"
    local one = guest()
    local vm = one.vm
    local bytes = image.elf { entry = 0x3000, segments = { { data = "\xf4", vaddr = 0x3000 } },
      symbols = { { name = "main", value = 0x3000 } } }
    assert(luna.load(vm, { bytes = bytes }))
    assert.equal("main", vm:symbol(0x3000))
    assert(luna.load(vm, { bytes = "\xf4" }, { format = "flat" }))
    assert.equal("main+0x1", vm:symbol(0x3001))
  end)
end)
