-- SPDX-License-Identifier: MIT
-- The flash chip against JESD68.01 and the datasheet of the 28F320J3, and as a guest's memory.

local cfi_flash = require "lunavisor.device.models.cfi_flash"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local random = require "spec.support.device"
local raises = helper.raises

local flash, image

local function write(at, ...)
  for _, byte in ipairs { ... } do flash:write(at, 1, byte) end
end
local function read(at) return flash:read(at, 1) end
local function status() return read(0) end

local function fresh(options)
  image = helper.keep(luna.buffer "64K")
  image:fill(255)
  options = options or {}
  options.image, options.log = options.image or image, false
  flash = cfi_flash(options)
end

helper.block("the chip", function()
  before_each(function() fresh() end)

  it("gives its array, at power-on and when it is asked", function()
    image:u32(0x123, 0x11223344)
    assert.equal(0x11223344, flash:read(0x123, 4))
    write(0, 0x70)
    assert.equal(0x80, status())
    assert.equal(0x80808080, flash:read(0x100, 4))
    write(0, 0xff)
    assert.equal(0x3344, flash:read(0x123, 2))
  end)

  it("describes itself", function()
    write(0x55, 0x98)
    local text = {}
    for at = 0x10, 0x12 do text[#text + 1] = string.char(read(at)) end
    assert.equal("QRY", table.concat(text))
    assert.same({ 1, 0, 0x31, 0 }, { read(0x13), read(0x14), read(0x15), read(0x16) })
    assert.same({ 16, 5, 1 }, { read(0x27), read(0x2a), read(0x2c) })
    assert.same({ 15, 0, 16, 0 }, { read(0x2d), read(0x2e), read(0x2f), read(0x30) })
    assert.same({ 0x50, 0x52, 0x49 }, { read(0x31), read(0x32), read(0x33) })
    write(0, 0x90)
    assert.same({ 0x89, 0x16, 0 }, { read(0), read(1), read(0x2002) })
  end)

  it("programs ones to zeros, and erases blocks to ones", function()
    write(0x1234, 0x40, 0x5a)
    assert.equal(0x80, status())
    write(0x1234, 0x10, 0xf0)
    write(0, 0xff)
    assert.equal(0x50, read(0x1234))
    image:u8(0x2000, 7)
    write(0x1800, 0x20, 0xd0)
    assert.equal(0x80, status())
    write(0, 0xff)
    assert.same({ 0xff, 7 }, { read(0x1234), read(0x2000) })
  end)

  it("says what went wrong until that is cleared", function()
    image:u8(5, 7)
    write(0, 0x20, 0xff)
    assert.equal(0xb0, status())
    write(0, 0x50, 0x70)
    assert.equal(0x80, status())
    write(0, 0xff)
    assert.equal(7, read(5))
  end)

  it("programs a buffer of bytes after a confirmation", function()
    write(0x300, 0xe8)
    assert.equal(0x80, status())
    write(0x300, 3)
    for i = 0, 3 do write(0x300 + i, 0x10 + i) end
    assert.equal(0xff, image:u8(0x300))
    write(0x300, 0xd0)
    assert.equal(0x80, status())
    assert.equal(0x13121110, image:u32(0x300))
    write(0x400, 0xe8, 32)
    assert.equal(0xb0, status())
    write(0, 0x50, 0xe8, 0, 0x12, 0x00)
    assert.equal(0xb0, status())
    assert.equal(0xff, image:u8(0))
  end)

  it("has locks of blocks", function()
    write(0x2000, 0x60, 0x01)
    write(0, 0x90)
    assert.same({ 0, 1 }, { read(0x1002), read(0x2002) })
    write(0x2345, 0x40, 0)
    assert.equal(0x92, status())
    write(0, 0x50)
    write(0x2345, 0x20, 0xd0)
    assert.equal(0xa2, status())
    write(0, 0x50, 0x60, 0xd0)
    write(0x2345, 0x40, 0)
    assert.equal(0x80, status())
    write(0, 0x60, 0x55)
    assert.equal(0xb0, status())
  end)

  it("changes nothing where it is read-only", function()
    fresh { read_only = true }
    write(0x10, 0x40, 0)
    assert.equal(0x92, status())
    write(0x10, 0x20, 0xd0)
    assert.equal(0xff, image:u8(0x10))
  end)

  it("keeps a command that is under way, and locks, in its state", function()
    write(0x3000, 0x60, 0x01)
    write(0x200, 0xe8, 1, 0x42)
    local saved = flash:save()
    assert.same({ "disk", "query" }, saved.without)
    flash = cfi_flash { image = image, log = false }
    assert(flash:load(saved))
    write(0x201, 0x43, 0xd0)
    assert.equal(0x4342, image:u16(0x200))
    write(0x3000, 0x40, 0)
    assert.equal(0x92, status())
  end)

  it("is refused with an image that has no whole blocks", function()
    raises("cfi_flash: image: 0x10000 bytes, and up to 64 MB in whole blocks of 0x20000",
      function() cfi_flash { image = image, block = "128K" } end)
    raises("cfi_flash: image: the path of a file, or a buffer, expected, got number",
      function() cfi_flash { image = 5 } end)
  end)

  it("is empty where it has no image", function()
    flash = cfi_flash { size = "8K", log = false }
    assert.equal(0x2000, flash.regions.main.size)
    assert.equal(0xffffffff, flash:read(0x1ffc, 4))
    flash = nil
  end)
end)

helper.kvm("a guest", function()
  it("runs in one chip and writes another", function()
    local code = helper.keep(luna.buffer "64K")
    code:write(0, luna.asm([[
      mov ebx, 0xd0000000
      mov cl, [rbx + 0x10]
      mov byte [rbx + 0x10], 0x40
      mov byte [rbx + 0x10], 0x5a
      mov ch, [rbx + 0x10]
      mov byte [rbx], 0xff
      mov dl, [rbx + 0x10]
      hlt ]], { bits = 64, org = 0x40000000 }))
    local g = helper.guest { mode = "long", source = "mov eax, 0x40000000\n jmp rax" }
    fresh()
    local rom = cfi_flash { image = code, read_only = true, name = "code", log = false }
    g.vm:attach(rom, { mmio = 0x40000000 })
    g.vm:attach(flash, { mmio = 0xd0000000 })
    g:stops "hlt"
    assert.equal(0x80ff, luna.u64.tonumber(g.cpu.rcx) % 0x10000)
    assert.equal(0x5a, luna.u64.tonumber(g.cpu.rdx) % 0x100)
    assert.equal(0x5a, image:u8(0x10))
    assert.is_true(g.cpu.exits < 8)
    flash, image = nil, nil
  end)
end)

helper.block("whatever a guest does", function()
  random.describe("cfi_flash", function(log)
    local memory = helper.keep(luna.buffer "64K")
    return cfi_flash { log = log, image = memory }
  end)
end)
