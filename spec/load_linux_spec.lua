-- SPDX-License-Identifier: MIT
-- luna.load of Linux kernels: the three entries, the zero page, initrd and command line, where the
-- kernel goes, and what is refused.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local machine, run = image.machine, image.run
local le16, le32, le64, refused = image.le16, image.le32, image.le64, helper.refused
local u64 = luna.u64

-- The kernel: ESI and EBX are looked at, EAX says by which entry it came.
local CODE = helper.code([[
  bits 32
  mov eax, 32
  hlt
  times 0x200 - ($ - $$) nop
  bits 64
  mov eax, 64
  hlt
]], 32, 0)
local SETUP = "mov ax, cs\nmov bx, ds\nmov si, sp\nmov edi, [es:0x228]\nhlt"

local function kernel(changes)
  return image.linux(CODE, changes, helper.code(SETUP, 16, 0))
end

helper.kvm("a Linux kernel", function()
  for mode, bits in pairs { long = 64, protected = 32 } do
    it(("begins by its %d-bit entry with the zero page in ESI"):format(bits), function()
      local vm, ram = machine()
      local loaded = assert(luna.load(vm, { bytes = kernel(), name = "vmlinuz" }, { mode = mode,
        command = "console=ttyS0", initrd = { bytes = ("i"):rep(5000) }, rsdp = 0xe0000 }))
      local cpu = run(vm, loaded)
      assert.equal(u64(bits), cpu.rax)
      assert.equal(u64(0x10), cpu.cs.selector)
      assert.equal(u64(0x18), cpu.ds.selector)
      local page = u64.tonumber(cpu.rsi)
      assert.equal("HdrS", ram:read(page + 0x202, 4))
      assert.equal(0xff, ram:u8(page + 0x210))
      assert.equal("console=ttyS0", ram:string(ram:u32(page + 0x228)))
      local initrd, size = ram:u32(page + 0x218), ram:u32(page + 0x21c)
      assert.same({ 0x3fe000, 5000 }, { initrd, size })
      assert.equal(("i"):rep(5000), ram:read(initrd, size))
      assert.equal(3, ram:u8(page + 0x1e8))
      assert.equal(le64(0x100000) .. le64(0x300000) .. le32(1), ram:read(page + 0x2d0 + 40, 20))
      assert.equal(0xe0000, ram:u32(page + 0x70))
      assert.equal(0x100000, ram:u32(page + 0x214))
    end)
  end

  it("takes the 64-bit entry where it has one and nothing is said", function()
    local vm = machine()
    assert.equal("long", assert(luna.load(vm, { bytes = kernel() })).entry.mode)
    local loaded = assert(luna.load(vm, { bytes = kernel { { 0x236, "\0\0" } } }))
    assert.equal("protected", loaded.entry.mode)
    assert.equal(u64(32), run(vm, loaded).rax)
  end)

  it("begins by its set-up code in real mode with a heap and the command line", function()
    local vm, ram = machine()
    local loaded = assert(luna.load(vm, { bytes = kernel() }, { mode = "real", command = "a=b" }))
    local cpu = run(vm, loaded)
    local function low(value) return u64.tonumber(u64.band(value, 0xffff)) end
    local segment = low(cpu.rbx)
    assert.equal(segment + 0x20, low(cpu.rax))
    assert.equal(0xe000, low(cpu.rsi))
    assert.equal(u64(segment * 16 + 0xe000), cpu.rdi)
    assert.equal("a=b", ram:string(segment * 16 + 0xe000))
    assert.equal(0xde00, ram:u16(segment * 16 + 0x224))
    assert.equal(0x81, ram:u8(segment * 16 + 0x211))
    assert.equal(CODE, ram:read(0x100000, #CODE))
  end)

  it("is told of a framebuffer or a text screen", function()
    local vm, ram = machine()
    local function page(framebuffer)
      local loaded = assert(luna.load(vm, { bytes = kernel() }, { framebuffer = framebuffer }))
      return u64.tonumber(u64(loaded.entry.registers.rsi))
    end
    local at = page { address = 0x1fd000000, width = 640, height = 480, pitch = 4096 }
    assert.equal(0x23, ram:u8(at + 0x0f))
    assert.equal(le16(640) .. le16(480) .. le16(32), ram:read(at + 0x12, 6))
    assert.equal(le32(0xfd000000) .. le32(30), ram:read(at + 0x18, 8))
    assert.equal(le16(4096) .. "\8\16\8\8\8\0\8\24", ram:read(at + 0x24, 10))
    assert.equal(le32(2) .. le32(1), ram:read(at + 0x36, 8))
    at = page "text"
    assert.same({ 3, 80, 25, 1, 16 }, { ram:u8(at + 6), ram:u8(at + 7), ram:u8(at + 14),
      ram:u8(at + 15), ram:u16(at + 16) })
  end)

  it("goes where it prefers, elsewhere if it can be moved and that is taken", function()
    local vm = machine()
    local function at(changes, options)
      local loaded = assert(luna.load(vm, { bytes = kernel(changes) }, options))
      return loaded.entry.rip - 0x200
    end
    assert.equal(0x200000, at { { 0x258, le64(0x200000) } })
    assert.equal(0x100000, at { { 0x258, le64(0x1000000) } })
    assert.equal(0x123000, at(nil, { address = 0x123000 }))
    assert.equal(0x100000, at { { 0x230, le32(0) }, { 0x234, "\0" } }) -- as iPXE has it
    refused("not_found", "the kernel, 0x1000000 to", luna.load(vm, { bytes = kernel {
      { 0x258, le64(0x1000000) }, { 0x234, "\0" } } }))
    refused("unsupported", "relocatable_kernel at offset 0x234 is 0x0: 0x1 for the option address",
      luna.load(vm, { bytes = kernel { { 0x234, "\0" } } }, { address = 0x200000 }))
    refused("unsupported", "kernel_alignment at offset 0x230 is 0x1000: an address that is a "
      .. "multiple of it, not 0x200010,", luna.load(vm, { bytes = kernel() },
      { address = 0x200010 }))
  end)

  it("keeps the memory that it begins in free", function()
    local vm = machine()
    local loaded = assert(luna.load(vm, { bytes = kernel { { 0x260, le32(0x2f0000) } } },
      { initrd = { bytes = ("i"):rep(0x10000) } }))
    local text = tostring(loaded)
    helper.contains("000000100210-0000003f0000 rwx the kernel's own", text)
    helper.contains("0000003f0000-000000400000 rw- the initrd", text)
    refused("not_found", "the initrd, bytes needs 0x10001 free bytes", luna.load(vm,
      { bytes = kernel { { 0x260, le32(0x2f0000) } } },
      { initrd = { bytes = ("i"):rep(0x10001) } }))
  end)

  it("is refused where its header is damaged or too old", function()
    local vm, ram = machine()
    local function check(code, message, changes, options)
      refused(code, message, luna.load(vm, { bytes = kernel(changes) }, options))
      assert.equal(("\0"):rep(0x400000) == ram:read(0, 0x400000), true)
    end
    check("unsupported", "version at offset 0x206 is 0x201: 0x202 or newer expected",
      { { 0x206, le16(0x201) } })
    check("unsupported", "loadflags at offset 0x211 is 0x0: bit 0 (loaded high, a bzImage) "
      .. "expected", { { 0x211, "\0" } })
    check("format", "setup_sects at offset 0x1f1 is 0xff: a kernel behind it in",
      { { 0x1f1, "\xff" } })
    check("format", "kernel_alignment at offset 0x230 is 0x123: a multiple of 0x1000 up to",
      { { 0x230, le32(0x123) } })
    check("format", "syssize at offset 0x1f4 is 0x1000: at most 0x21, as the image has 0x810 "
      .. "bytes,", { { 0x1f4, le32(0x1000) } })
    check("unsupported", "xloadflags at offset 0x236 is 0x0: bit 0 (a 64-bit entry) for mode "
      .. "'long'", { { 0x236, le16(0) } }, { mode = "long" })
    check("unsupported", "it cannot begin in mode 'user': 'real', 'protected' or 'long' expected",
      nil, { mode = "user" })
    check("unsupported", "its command line has at most 0x7ff bytes, and command has 0x800",
      nil, { command = ("x"):rep(2048) })
    refused("format", "the set-up header at offset 0x0 takes 608 bytes", luna.load(vm,
      { bytes = kernel():sub(1, 0x220) }))
    refused("format", "header at offset 0x202 is 78 78 78 78: 48 64 72 53 (HdrS) expected",
      luna.load(vm, { bytes = ("x"):rep(0x1000) }, { format = "linux" }))
  end)
end)
