-- SPDX-License-Identifier: MIT
-- luna.load of kernels with a multiboot header, a multiboot 2 header or a PVH entry: what they find
-- in EAX, EBX and the structures there, and which are refused.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local machine = image.machine
local le32, patch, refused = image.le32, image.patch, helper.refused
local u64 = luna.u64

-- Runs a kernel, which ends with HLT; its EAX and EBX at the begin are in ESI and EDI.
local KERNEL = "mov esi, eax\nmov edi, ebx\nhlt"

local function run(vm, loaded)
  local cpu = image.run(vm, loaded)
  return u64.tonumber(cpu.rsi), u64.tonumber(cpu.rdi)
end

local function elf(front, more)
  local options = { bits = 32, entry = 0x100000, front = front, segments = {
    { data = helper.code(KERNEL, 32, 0x100000), vaddr = 0x100000, memsz = 0x1800 } } }
  for name, value in pairs(more or {}) do options[name] = value end
  return image.elf(options)
end

local function text(ram, gpa)
  return ram:string(gpa)
end

helper.kvm("a multiboot kernel", function()
  -- A flat one, whose header says where it goes.
  local function flat(fields)
    local at = { header = 0x200004, load = 0x200000, load_end = 0, bss_end = 0, entry = 0x200024 }
    for name, value in pairs(fields or {}) do at[name] = value end
    return "1234" .. image.multiboot(0x10000, le32(at.header) .. le32(at.load) .. le32(at.load_end)
      .. le32(at.bss_end) .. le32(at.entry)) .. helper.code(KERNEL, 32, 0x200024)
  end

  it("finds memory, command line, modules and their command lines", function()
    local vm, ram = machine()
    local loaded = assert(luna.load(vm, { bytes = elf(image.multiboot(3)), name = "k" }, {
      command = "k quiet", modules = { { bytes = "first", command = "a b" },
        { bytes = ("x"):rep(5000) } } }))
    assert.equal("k: a multiboot kernel, ELF32, begins at 0x100000 in mode protected",
      tostring(loaded):match "^[^\n]*")
    local eax, info = run(vm, loaded)
    assert.equal(0x2badb002, eax)
    assert.equal(0x24d, ram:u32(info))
    assert.equal(640, ram:u32(info + 4))
    assert.equal(3072, ram:u32(info + 8))
    assert.equal("k quiet", text(ram, ram:u32(info + 16)))
    assert.equal(2, ram:u32(info + 20))
    local modules = ram:u32(info + 24)
    local first, last = ram:u32(modules), ram:u32(modules + 4)
    assert.equal("first", ram:read(first, last - first))
    assert.equal(0, first % 0x1000)
    assert.is_true(first >= 0x101800)
    assert.equal("a b", text(ram, ram:u32(modules + 8)))
    assert.equal(5000, ram:u32(modules + 20) - ram:u32(modules + 16))
    assert.equal("", text(ram, ram:u32(modules + 24)))
    assert.equal("lunavisor", text(ram, ram:u32(info + 64)))
    local size, map = ram:u32(info + 44), ram:u32(info + 48)
    assert.equal(72, size)
    local lines = {}
    for at = map, map + size - 1, 24 do
      lines[#lines + 1] = ("%d %x %x %d"):format(ram:u32(at), ram:u32(at + 4), ram:u32(at + 12),
        ram:u32(at + 20))
    end
    assert.same({ "20 0 a0000 1", "20 a0000 60000 2", "20 100000 300000 1" }, lines)
  end)

  it("may be flat, with its addresses in the header", function()
    local vm, ram = machine()
    ram:fill(0xff, 0x200000, 0x2000)
    local eax = run(vm, assert(luna.load(vm, { bytes = flat { bss_end = 0x201000 } })))
    assert.equal(0x2badb002, eax)
    assert.equal("1234", ram:read(0x200000, 4))
    assert.equal("\0\xff", ram:read(0x200fff, 2))
    run(vm, assert(luna.load(vm, { bytes = flat { load_end = 0x200100 }
      .. ("\xee"):rep(0x1000) })))
    assert.equal("\xee", ram:read(0x2000ff, 1))
    assert.are_not.equal("\xee", ram:read(0x200100, 1))
  end)

  it("is told of a framebuffer, or of the text screen that it asks for", function()
    local vm, ram = machine()
    local _, info = run(vm, assert(luna.load(vm, { bytes = elf(image.multiboot(3)) }, {
      framebuffer = { address = 0xfd000000, width = 640, height = 480 } })))
    assert.equal(1, math.floor(ram:u32(info) / 0x1000) % 2)
    assert.equal(0xfd000000, ram:u32(info + 88))
    assert.same({ 2560, 640, 480, 32, 1 }, { ram:u32(info + 96), ram:u32(info + 100),
      ram:u32(info + 104), ram:u8(info + 108), ram:u8(info + 109) })
    assert.equal("\16\8\8\8\0\8", ram:read(info + 110, 6))
    local wish = image.multiboot(4, ("\0"):rep(20) .. le32(1) .. le32(80) .. le32(25) .. le32(0))
    _, info = run(vm, assert(luna.load(vm, { bytes = elf(wish) })))
    assert.same({ 0xb8000, 160, 80, 25, 16, 2 }, { ram:u32(info + 88), ram:u32(info + 96),
      ram:u32(info + 100), ram:u32(info + 104), ram:u8(info + 108), ram:u8(info + 109) })
    wish = image.multiboot(4, ("\0"):rep(20) .. le32(0) .. le32(800) .. le32(600) .. le32(32))
    refused("unsupported", "flags at offset 0x64 is a framebuffer of 800 x 600, 32 bits: no such "
      .. "wish, or the option framebuffer, expected", luna.load(vm, { bytes = elf(wish) }))
  end)

  it("is refused where its header cannot be granted or does not fit", function()
    local vm = machine()
    local function check(code, message, bytes, options)
      refused(code, message, luna.load(vm, { bytes = bytes }, options))
    end
    check("unsupported", "flags at offset 0x64 is 0x8: bits 3 to 15 clear expected",
      elf(image.multiboot(8)))
    check("format", "it has no header in its first 0x2000 bytes: 02 b0 ad 1b at a multiple of 4",
      elf(""), { format = "multiboot" })
    check("format", "load_addr at offset 0x14 is 0x300000: an address from 0x200000 to 0x200004, "
      .. "header_addr, expected", flat { load = 0x300000 })
    check("format", "load_addr at offset 0x14 is 0x100000", flat { load = 0x100000 })
    check("format", "load_end_addr at offset 0x18 is 0x100: an address above load_addr, 0x200000,",
      flat { load_end = 0x100 })
    check("format", "what load_addr and load_end_addr count at offset 0x0 takes 1048576 bytes",
      flat { load_end = 0x300000 })
    check("format", "bss_end_addr at offset 0x1c is 0x10: an address from load_end_addr",
      flat { bss_end = 0x10 })
    check("format", "flags at offset 0x8 is 0x3: bit 16, addresses in the header, as it is no ELF",
      "1234" .. image.multiboot(3), { format = "multiboot" })
    check("format", "it is empty, and module 1: at least one byte expected",
      elf(image.multiboot(3)), { modules = { { bytes = "" } } })
    check("not_found", "/no/such/module: it cannot be opened", elf(image.multiboot(3)),
      { modules = { "/no/such/module" } })
    check("not_found", "bytes: module 1, big needs 0x400000 free bytes of writable memory",
      elf(image.multiboot(3)), { modules = { { bytes = ("x"):rep(0x400000), name = "big" } } })
    check("unsupported", "the option initrd is not for this format", elf(image.multiboot(3)),
      { initrd = "x" })
  end)
end)

helper.kvm("a multiboot 2 kernel", function()
  -- The tags of the information by their types: lists of their bodies.
  local function tags_of(ram, info)
    local tags, at, last = {}, info + 8, info + ram:u32(info)
    while at < last do
      local kind, size = ram:u32(at), ram:u32(at + 4)
      tags[kind] = tags[kind] or {}
      table.insert(tags[kind], ram:read(at + 8, size - 8))
      at = at + math.ceil(size / 8) * 8
    end
    return tags
  end

  local function kernel(tags)
    return elf(image.multiboot2(tags or ""))
  end

  local function header(architecture, size, tags)
    return elf(le32(0xe85250d6) .. le32(architecture) .. le32(size)
      .. le32(-(0xe85250d6 + architecture + size) % 2 ^ 32) .. tags)
  end

  it("finds tags with command line, memory, modules and a framebuffer", function()
    local vm, ram = machine()
    local loaded = assert(luna.load(vm, { bytes = kernel(), name = "k" }, { command = "k quiet",
      modules = { { bytes = "first", command = "a b" } }, framebuffer = "text" }))
    assert.equal("k: a multiboot 2 kernel, ELF32, begins at 0x100000 in mode protected",
      tostring(loaded):match "^[^\n]*")
    local eax, info = run(vm, loaded)
    assert.equal(0x36d76289, eax)
    assert.equal(0, info % 8)
    local tags = tags_of(ram, info)
    assert.same({ "k quiet\0" }, tags[1])
    assert.same({ "lunavisor\0" }, tags[2])
    assert.equal("a b\0", tags[3][1]:sub(9))
    assert.same({ le32(640) .. le32(3072) }, tags[4])
    assert.equal(8 + 3 * 24, #tags[6][1])
    assert.equal(image.le64(0xb8000) .. le32(160) .. le32(80) .. le32(25) .. "\16\2\0\0",
      tags[8][1])
    assert.same({ le32(0x100000) }, tags[21])
    assert.same({ "" }, tags[0])
  end)

  it("may be flat, with tags for its addresses and entry", function()
    local vm, ram = machine()
    local function flat(more)
      local code = helper.code(KERNEL, 32, 0)
      local tags = image.tag(2, le32(0x200000) .. le32(0x200000) .. le32(0) .. le32(0x202000))
      local size = #image.multiboot2(tags .. (more and image.tag(3, le32(0)) or ""))
      return image.multiboot2(tags .. (more and image.tag(3, le32(0x200000 + size)) or ""))
        .. code
    end
    local _, info = run(vm, assert(luna.load(vm, { bytes = flat(true) }, {
      framebuffer = { address = 2 ^ 32, width = 10, height = 10, bits = 16 } })))
    local tags = tags_of(ram, info)
    assert.equal("\11\5\5\6\0\5", tags[8][1]:sub(-6))
    assert.same({ le32(0x200000) }, tags[21])
    refused("format", "its header has an address tag and no entry tag: both expected",
      luna.load(vm, { bytes = flat(false) }))
  end)

  it("is refused for what its tags ask for, but not where they are optional", function()
    local vm = machine()
    local function check(code, message, bytes)
      refused(code, message, luna.load(vm, { bytes = bytes }))
    end
    check("unsupported", "the type of a tag at offset 0x70 is 0x7: 1 to 6 or 10, or an optional "
      .. "tag, expected", kernel(image.tag(7, "")))
    assert(luna.load(vm, { bytes = kernel(image.tag(7, "", true)) }))
    check("unsupported", "mbi_tag_types at offset 0x7c is 0x9: a tag of the types 1, 2, 3, 4, 6, 8 "
      .. "and 21 expected", kernel(image.tag(1, le32(1) .. le32(9))))
    assert(luna.load(vm, { bytes = kernel(image.tag(1, le32(9), true)) }))
    check("unsupported", "a tag at offset 0x70 is a framebuffer of 640 x 480, 32 bits",
      kernel(image.tag(5, le32(640) .. le32(480) .. le32(32))))
    assert(luna.load(vm, { bytes = kernel(image.tag(5, le32(640) .. le32(480) .. le32(32),
      true)) }))
    check("unsupported", "architecture at offset 0x64 is 0x4: 0x0 (i386) expected", header(4, 24,
      image.tag(0, "")))
    check("format", "the size of a tag at offset 0x74 is 0x4: 8 to 0x", patch(kernel(
      image.tag(7, "", true)), 0x74, le32(4)))
    check("format", "header_length at offset 0x68 is 0x10: a header with a tag of the type 0 last",
      header(0, 16, ""))
    refused("format", "it has no header in its first 0x8000 bytes", luna.load(vm,
      { bytes = elf "" }, { format = "multiboot2" }))
  end)
end)

helper.kvm("a PVH kernel", function()
  local function kernel(data, more)
    local options = { bits = 64, type = 2, entry = 0x100000, segments = {
      { data = helper.code("hlt\n" .. KERNEL, 32, 0x100000), vaddr = 0x100000 },
      { data = image.note("GNU\0", 18, "1234") .. image.note("Xen\0", 18, data), type = "note" },
    } }
    for name, value in pairs(more or {}) do options[name] = value end
    return image.elf(options)
  end

  it("finds command line, modules, the map of memory and ACPI's tables", function()
    local vm, ram = machine()
    local loaded = assert(luna.load(vm, { bytes = kernel(image.le64(0x100001)), name = "k" }, {
      command = "k quiet", initrd = { bytes = "initrd" }, rsdp = 0xe0000,
      modules = { { bytes = "second", command = "b" } } }))
    assert.equal("k: a PVH kernel, ELF64, begins at 0x100001 in mode protected",
      tostring(loaded):match "^[^\n]*")
    local _, info = run(vm, loaded)
    assert.same({ 0x336ec578, 1, 0, 2 }, { ram:u32(info), ram:u32(info + 4), ram:u32(info + 8),
      ram:u32(info + 12) })
    assert.equal("k quiet", text(ram, ram:u32(info + 24)))
    assert.equal(0xe0000, ram:u32(info + 32))
    local modules = ram:u32(info + 16)
    assert.equal("initrd", ram:read(ram:u32(modules), ram:u32(modules + 8)))
    assert.equal("second", ram:read(ram:u32(modules + 32), ram:u32(modules + 40)))
    assert.equal("b", text(ram, ram:u32(modules + 48)))
    local map = ram:u32(info + 40)
    assert.equal(3, ram:u32(info + 48))
    assert.same({ 0x100000, 0x300000, 1 }, { ram:u32(map + 48), ram:u32(map + 56),
      ram:u32(map + 64) })
  end)

  it("is refused with a note that is damaged, or with none", function()
    local vm = machine()
    refused("format", "n_descsz at offset", luna.load(vm, { bytes = kernel "xy" },
      { format = "pvh" }))
    refused("format", "it has no PT_NOTE segment with a note of the name Xen and the type 0x12, "
      .. "the PVH entry: one expected", luna.load(vm, { bytes = elf "" }, { format = "pvh" }))
    local bytes = kernel(le32(0x100001))
    local at = bytes:find("GNU\0", 1, true) - 1
    refused("format", ("n_descsz at offset 0x%x is 0x1000: a note that ends before"):format(at - 8),
      luna.load(vm, { bytes = patch(bytes, at - 8, le32(0x1000)) }, { format = "pvh" }))
  end)
end)
