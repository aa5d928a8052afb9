-- SPDX-License-Identifier: MIT
-- luna.load of ELF files: where their segments go, the state they begin in, relocation of
-- position-independent ones, their symbols, and what is refused.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local machine, run = image.machine, image.run
local le32, le64, patch, refused = image.le32, image.le64, image.patch, helper.refused
local u64 = luna.u64

-- A file of one segment at 0x100000.
local function plain(bits, source, more)
  local options = { bits = bits, entry = 0x100000, segments = {
    { data = helper.code(source, bits, 0x100000), vaddr = 0x100000, memsz = 0x2000, flags = 5 } } }
  for name, value in pairs(more or {}) do options[name] = value end
  return image.elf(options)
end

helper.kvm("an ELF executable", function()
  for bits, mode in pairs { [32] = "protected", [64] = "long" } do
    it(("of %d bits begins in mode %s with a stack"):format(bits, mode), function()
      local vm, ram = machine()
      ram:fill(0xff, 0x101000, 0x1000)
      local loaded = assert(luna.load(vm, { bytes = plain(bits,
        "push 0x1234\npop ax\nmov bx, [0x101000]\nhlt"), name = "k" }))
      assert.equal(("k: an ELF%d executable, begins at 0x100000 in mode %s"):format(bits, mode),
        tostring(loaded):match "^[^\n]*")
      local cpu = run(vm, loaded)
      assert.equal(u64(0), u64.band(cpu.rbx, 0xffff))
      assert.equal("r-x", loaded.segments[1].rights)
      assert.equal("\0", ram:read(0x101fff, 1))
    end)
  end

  it("goes where its physical addresses say, also its entry", function()
    local vm = machine()
    local code = helper.code("lea rax, [rel $]\nhlt", 64, 0)
    local bytes = image.elf { entry = 0x80000000, segments = {
      { data = "data", vaddr = 0x80200000, paddr = 0x300000 },
      { data = code, vaddr = 0x80000000, paddr = 0x200000 } } }
    local loaded = assert(luna.load(vm, { bytes = bytes }))
    assert.equal(0x200000, loaded.entry.rip)
    assert.equal(u64(0x200000), run(vm, loaded).rax)
    assert.equal("data", vm.default:read(0x300000, 4))
  end)

  it("may have physical addresses for its entry", function()
    local vm = machine()
    local bytes = image.elf { entry = 0x200000, segments = {
      { data = "\xf4", vaddr = 0x80000000, paddr = 0x200000 } } }
    assert.equal(0x200000, assert(luna.load(vm, { bytes = bytes })).entry.rip)
  end)

  it("runs in ring 3 with mode 'user'", function()
    local vm = machine()
    local loaded = assert(luna.load(vm, { bytes = plain(64, "mov eax, cs\nout 0x10, al\nhlt") },
      { mode = "user" }))
    local cpu = helper.keep(vm:vcpu(loaded.entry))
    assert.equal("pio", cpu:run({ timeout = 60 }).kind)
    assert.equal(u64(3), u64.band(cpu.rax, 3))
  end)

  it("is linked by ld as well", function()
    local _, status = helper.sh "command -v ld"
    if status ~= 0 then pending "ld is not installed" end
    local dir = helper.sh "mktemp -d"
    helper.keep { close = function() os.execute("rm -rf " .. dir) end }
    local output, failed = helper.sh(([[cd %s && printf '%%s\n' 'global _start' 'section .text' \
      '_start: mov rax, [rel pointer]' 'mov rbx, [rax]' 'hlt' 'section .data' 'value: dq 77' \
      'pointer: dq value' >k.asm && nasm -f elf64 k.asm && ld -o k k.o &&
      ld -pie --no-dynamic-linker -z nopack-relative-relocs -o p k.o 2>/dev/null ||
      ld -pie --no-dynamic-linker -o p k.o]]):format(dir))
    assert.equal(0, failed, output)
    for _, name in ipairs { "k", "p" } do
      local vm = machine "8M"
      local loaded = assert(luna.load(vm, dir .. "/" .. name))
      assert.equal(u64(77), run(vm, loaded).rbx)
      local symbols = loaded.symbols
      assert.equal(loaded.entry.rip, symbols._start)
      assert.equal(symbols.value, u64.tonumber(assert(vm.default:u64(symbols.pointer))))
    end
  end)
end)

helper.kvm("a position-independent ELF file", function()
  -- A pointer to `value` in the data, which is to be relocated.
  local function moved(bits, explicit)
    local word = bits == 64 and le64 or le32
    local size = bits / 8
    local code = helper.code("hlt", bits, 0)
    local data = word(explicit and 0 or 0x2040) .. word(7)
    local info = bits == 64 and le64(8) or le32(8)
    local relocation = word(0x2000) .. info .. (explicit and word(0x2040) or "")
    local first = 0x1000
    local dynamic = word(explicit and 7 or 17) .. word(first) .. word(explicit and 8 or 18)
      .. word(#relocation) .. word(0) .. word(0)
    return image.elf { bits = bits, type = 3, entry = 0, segments = {
      { data = code, vaddr = 0 }, { data = relocation, vaddr = first },
      { data = data, vaddr = 0x2000, memsz = 0x100 }, { data = dynamic, type = "dynamic" } },
      symbols = { { name = "pointer", value = 0x2000 }, { name = "fixed", value = 5,
        section = 0xfff1 } } }, size
  end

  for _, case in ipairs { { 64, true }, { 32, false }, { 64, false } } do
    local bits, explicit = case[1], case[2]
    it(("of %d bits is relocated, addends %s"):format(bits, explicit and "in the table"
      or "in place"), function()
      local vm, ram = machine()
      local bytes, size = moved(bits, explicit)
      local loaded = assert(luna.load(vm, { bytes = bytes }))
      assert.equal(0x200000, loaded.entry.rip)
      assert.equal(0x202000, loaded.symbols.pointer)
      assert.equal(5, loaded.symbols.fixed)
      assert.equal(0x202040, ram:u32(0x202000))
      assert.equal(7, ram:u32(0x202000 + size))
      loaded = assert(luna.load(vm, { bytes = bytes }, { address = 0x100000 }))
      assert.equal(0x100000, loaded.entry.rip)
      assert.equal(0x102040, ram:u32(0x102000))
      assert(luna.load(vm, { bytes = bytes }, { address = 0x300000, relocate = false }))
      assert.equal(explicit and 0 or 0x2040, ram:u32(0x302000))
    end)
  end

  it("is refused with relocations that are not relative, and at odd addresses", function()
    local vm = machine()
    local bytes = moved(64, true)
    local at = bytes:find(le64(0x2000) .. le64(8), 1, true) - 1
    refused("unsupported", ("the type in r_info at offset 0x%x is 0x6: 0x8 (RELATIVE)"):format(
      at + 8), luna.load(vm, { bytes = patch(bytes, at + 8, le32(6)) }))
    refused("format", ("r_offset at offset 0x%x is 0x5000: an address in a segment of the file "
      .. "expected"):format(at), luna.load(vm, { bytes = patch(bytes, at, le64(0x5000)) }))
    refused("unsupported", "it cannot begin at 0x123: a multiple of 0x1000 expected",
      luna.load(vm, { bytes = bytes }, { address = 0x123 }))
    local dynamic = bytes:find(le64(7) .. le64(0x1000), 1, true) - 1
    refused("unsupported", "no packed relative relocations (-z nopack-relative-relocs) expected",
      luna.load(vm, { bytes = patch(bytes, dynamic, le64(36)) }))
    refused("format", "the table of relocations in the dynamic segment",
      luna.load(vm, { bytes = patch(bytes, dynamic + 8, le64(0x7000)) }))
  end)
end)

helper.kvm("the symbols of an ELF file", function()
  local function loaded(bits, list)
    local vm = machine()
    return assert(luna.load(vm, { bytes = plain(bits, "hlt", { symbols = list }) })).symbols
  end

  for _, bits in ipairs { 32, 64 } do
    it(("of %d bits are addresses by name and names by address"):format(bits), function()
      local symbols = loaded(bits, {
        { name = "main", value = 0x100010, size = 0x20 }, { name = "_start", value = 0x100000 },
        { name = "alias", value = 0x100010 }, { name = "file.c", value = 0, info = 4 },
        { name = "extern", value = 0, section = 0 }, { name = "end", value = 0x100100 } })
      assert.equal(0x100010, symbols.main)
      assert.equal(0x100000, symbols:find "_start")
      assert.is_nil(symbols:find "file.c")
      assert.is_nil(symbols:find "extern")
      assert.same({ "main", 0 }, { symbols:at(0x100010) })
      assert.same({ "main", 0x1f }, { symbols:at(u64(0x10002f)) })
      assert.same({}, { symbols:at(0x100030) })
      assert.same({ "_start", 0xf }, { symbols:at(0x10000f) })
      assert.same({ "end", 0x1000 }, { symbols:at(0x101100) })
      assert.same({}, { symbols:at(0xfffff) })
      assert.equal("0x100000 _start\n0x100010 main\n0x100010 alias\n0x100100 end",
        tostring(symbols))
      assert.same({ name = "main", address = 0x100010, size = 0x20 }, symbols:list()[2])
      helper.raises("there is no symbol 'mian'; did you mean 'main'?", function()
        return symbols.mian
      end)
    end)
  end

  it("may be at the top of the address space", function()
    local symbols = loaded(64, { { name = "top", value = 0x10 } })
    assert.equal(0x10, symbols.top)
    local vm = machine()
    local bytes = plain(64, "hlt", { symbols = { { name = "kernel", value = 0x81000000 } } })
    local at = bytes:find(le64(0x81000000), 1, true) - 1
    symbols = assert(luna.load(vm, { bytes = patch(bytes, at + 4, le32(0xffffffff)) })).symbols
    assert.equal("0xffffffff81000000", luna.hex(symbols.kernel))
    assert.same({ "kernel", 5 }, { symbols:at(u64 "0xffffffff81000005") })
    assert.same({}, { symbols:at(0x81000005) })
  end)

  it("are none where the file has none", function()
    local vm = machine()
    local symbols = assert(luna.load(vm, { bytes = plain(64, "hlt") })).symbols
    assert.same({}, symbols:list())
    assert.is_nil(symbols:find "main")
  end)

  it("are refused with names outside their table", function()
    local vm = machine()
    local bytes = plain(64, "hlt", { symbols = { { name = "main", value = 5 } } })
    local at = bytes:find(le32(1) .. "\x12\0", 1, true) - 1
    refused("format", ("st_name at offset 0x%x is 0x100: less than 0x6"):format(at),
      luna.load(vm, { bytes = patch(bytes, at, le32(0x100)) }))
    local name = bytes:find("main\0", 1, true) - 1
    refused("format", ("a symbol's name at offset 0x%x has no zero byte up to 0x%x"):format(name,
      name + 5), luna.load(vm, { bytes = patch(bytes, name + 4, "x") }))
  end)
end)

helper.kvm("an ELF file is refused", function()
  local function check(code, text, bytes, options)
    local vm, ram = machine()
    local untouched = ram:read(0, 0x400000)
    refused(code, text, luna.load(vm, { bytes = bytes, name = "k" }, options))
    assert.is_true(untouched == ram:read(0, 0x400000))
  end
  local plain64

  before_each(function() plain64 = plain(64, "hlt") end)

  it("for another class, byte order, processor or type", function()
    check("format", "k: ELF executable: EI_CLASS at offset 0x4 is 0x3: 1 or 2 (32 or 64 bits) "
      .. "expected", patch(plain64, 4, "\3"))
    check("unsupported", "k: ELF64: EI_DATA at offset 0x5 is 0x2: 0x1 (little endian) expected",
      patch(plain64, 5, "\2"))
    check("unsupported", "e_machine at offset 0x12 is 0xb7: 0x3e (x86-64) expected",
      patch(plain64, 18, "\xb7"))
    check("unsupported", "e_type at offset 0x10 is an object file, which is not linked: 0x2 "
      .. "(executable) or 0x3", patch(plain64, 16, "\1"))
    check("format", "e_type at offset 0x10 is 0x1234", patch(plain64, 16, "\x34\x12"))
  end)

  it("for tables that are cut or of other sizes", function()
    check("format", "the ELF header at offset 0x0 takes 64 bytes, which end at 0x40: an image of "
      .. "that length expected, this one has 0x20 bytes", plain64:sub(1, 32))
    check("format", "e_phentsize at offset 0x36 is 0x20: 0x38 expected", patch(plain64, 54, " \0"))
    check("unsupported", "e_phnum at offset 0x38 is 0xffff: at most 0x100 expected",
      patch(plain64, 56, "\xff\xff"))
    check("format", "the table of program headers at offset 0xffff00 takes 56 bytes",
      patch(plain64, 32, le64(0xffff00)))
    check("format", "e_phoff at offset 0x20 is 0xffffffff00000040: a value below 0x10000000000000",
      patch(plain64, 36, "\xff\xff\xff\xff"))
    check("format", "what p_filesz of program header 0 counts at offset 0x1000 takes",
      plain64:sub(1, 0x1000))
  end)

  it("for segments that are damaged or have no memory", function()
    check("format", "p_filesz of program header 0 at offset 0x60 is 0x1: at most p_memsz, 0x0, "
      .. "expected", patch(plain64, 64 + 40, le64(0)))
    check("format", "a header of the type PT_LOAD, something to load, expected",
      patch(plain64, 64, le32(0)))
    check("not_found", "segment 0, 0x100000 to 0x1100000, needs memory, and nothing is mapped at "
      .. "0x400000", plain(64, "hlt", { segments = {
      { data = "\xf4", vaddr = 0x100000, memsz = 0x1000000 } } }))
    check("format", "segment 1, 0x100800 to 0x100801, lies over segment 0, 0x100000 to 0x101000",
      plain(64, "hlt", { segments = { { data = "\xf4", vaddr = 0x100000, memsz = 0x1000 },
        { data = "\xf4", vaddr = 0x100800 } } }))
    check("format", "e_entry at offset 0x18 is 0x5000: an address in a segment that is loaded",
      plain(64, "hlt", { entry = 0x5000 }))
    check("format", "p_vaddr of program header 0 at offset 0x50 is 0xffffffff80000000: an address "
      .. "below", patch(plain(64, "hlt", { type = 3 }), 0x50, le64(0x80000000):sub(1, 4)
      .. "\xff\xff\xff\xff"))
  end)

  it("that needs a dynamic linker, or another mode or address", function()
    check("unsupported", "p_type of program header 1 at offset 0x78 is 0x3: no PT_INTERP (linked "
      .. "with -static) expected", plain(64, "hlt", { segments = {
      { data = "\xf4", vaddr = 0x100000 }, { data = "/lib/ld.so\0", type = "interp" } } }))
    check("unsupported", "it cannot begin in mode \"real\": 'long' or 'user' expected", plain64,
      { mode = "real" })
    check("unsupported", "it is linked for its own addresses: address can be given for a position-"
      .. "independent one (-static-pie)", plain64, { address = 0x200000 })
    check("unsupported", "the option modules is not for this format", plain64, { modules = {} })
  end)
end)
