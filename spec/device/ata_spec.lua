-- SPDX-License-Identifier: MIT
-- The ATA channel against T13/1410D, and string I/O of a guest through it.

local ata = require "lunavisor.device.models.ata"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local random = require "spec.support.device"
local t = require "lunavisor.testing"
local raises = helper.raises

local SECTORS = 2048 -- 1 MB: 2 cylinders of 16 heads and 63 sectors

local hd, image

-- Sector number n has n in each of its 128 words of 4 bytes.
local function fill(buffer)
  for n = 0, buffer.size / 512 - 1 do
    for at = 0, 508, 4 do buffer:u32(512 * n + at, n) end
  end
end

local function out(port, byte) hd:write(port, 1, byte) end
local function inp(port) return hd:read(port, 1) end
local function control(byte) hd.regions.control.write(nil, 0, 1, byte) end
local function alternate() return hd.regions.control.read(nil, 0, 1) end

-- A command with an address of 28 bits.
local function command(code, sector, count, dev)
  out(6, 0xe0 + 16 * (dev or 0) + math.floor(sector / 2 ^ 24))
  out(2, count)
  for i = 0, 2 do out(3 + i, math.floor(sector / 256 ^ i) % 256) end
  out(7, code)
end

-- With one of 48 bits.
local function wide(code, sector, count)
  out(6, 0x40)
  out(2, math.floor(count / 256) % 256)
  for i = 0, 2 do out(3 + i, math.floor(sector / 256 ^ (i + 3)) % 256) end
  out(2, count % 256)
  for i = 0, 2 do out(3 + i, math.floor(sector / 256 ^ i) % 256) end
  out(7, code)
end

-- The numbers of so many sectors that the host reads, each with the status before it.
local function read(count)
  local list = {}
  for i = 1, count do
    list[i] = inp(7) == 0x58 and hd:read(0, 4) or -1
    for _ = 1, 254 do hd:read(0, 2) end
  end
  return list
end

local function failed(code)
  assert.equal(0x51, alternate())
  assert.equal(code, inp(1))
end

local function fresh(options)
  image = helper.keep(luna.buffer(SECTORS * 512))
  fill(image)
  options = options or {}
  options.log = false
  if options.master == nil then options.master = image end
  hd = ata(options)
end

before_each(function() fresh() end)
after_each(function()
  hd, image = nil, nil
  helper.clean()
end)

describe("a drive", function()
  it("reads sectors, one a block and an interrupt", function()
    command(0x20, 5, 3)
    assert.is_true(hd.lines.irq)
    assert.same({ 5, 6, 7 }, read(3))
    assert.equal(0x50, inp(7))
    assert.equal(5, hd.irq.edges - 1 + hd.irq.edges % 2)
    assert.is_false(hd.lines.irq)
  end)

  it("takes a count of 0 for 256, with 48 bits for 65536", function()
    command(0x20, 0, 0)
    assert.equal(255, read(256)[256])
    assert.equal(0x50, inp(7))
    wide(0x24, 0, 0)
    failed(0x10)
    hd = ata { master = helper.keep(luna.buffer(65536 * 512)), log = false }
    wide(0x24, 0, 0)
    assert.equal(0x58, inp(7))
    assert.equal(65535, hd.due)
  end)

  it("reads and writes with 48 bits, and gives back both halves of its registers", function()
    wide(0x24, 1000, 2)
    assert.same({ 1000, 1001 }, read(2))
    out(3, 0x11)
    out(3, 0x22)
    assert.equal(0x22, inp(3))
    control(0x80)
    assert.equal(0x11, inp(3))
    out(2, 0)
    assert.equal(0x22, inp(3))
  end)

  it("writes sectors, and interrupts after each", function()
    command(0x30, 7, 2)
    assert.is_false(hd.lines.irq)
    assert.equal(0x58, inp(7))
    for n = 1, 256 do
      if n == 256 then assert.is_false(hd.lines.irq) end
      hd:write(0, 2, n)
    end
    assert.is_true(hd.lines.irq)
    assert.equal(0x58, inp(7))
    hd:write_block(0, 2, ("ab"):rep(256))
    assert.equal(0x50, inp(7))
    assert.equal(1, image:u16(7 * 512))
    assert.equal(256, image:u16(8 * 512 - 2))
    assert.equal(("ab"):rep(256), image:read(8 * 512, 512))
    assert.equal(9, image:u32(9 * 512))
  end)

  it("has blocks of several sectors once they are set", function()
    command(0xc4, 0, 4)
    failed(0x04)
    for count, status in pairs { [3] = 0x51, [32] = 0x51, [4] = 0x50 } do
      command(0xc6, 0, count)
      assert.equal(status, inp(7), count)
    end
    command(0xec, 0, 1)
    assert.equal("\4\1", hd:read_block(0, 2, 256):sub(119, 120))
    command(0xc4, 8, 6)
    inp(7)
    local edges = hd.irq.edges
    assert.equal(image:read(8 * 512, 4 * 512), hd:read_block(0, 2, 1024))
    assert.equal(edges + 1, hd.irq.edges)
    inp(7)
    assert.equal(image:read(12 * 512, 2 * 512), hd:read_block(0, 4, 256))
    assert.equal(0x50, inp(7))
    command(0xc5, 0, 5)
    hd:write_block(0, 2, ("x"):rep(2048))
    assert.is_true(hd.lines.irq)
    assert.equal(0x58, inp(7))
    hd:write_block(0, 2, ("y"):rep(512))
    assert.equal(0x50, inp(7))
    assert.equal(("x"):rep(2048) .. ("y"):rep(512), image:read(0, 5 * 512))
    command(0xc6, 0, 0)
    command(0xc5, 0, 1)
    failed(0x04)
  end)

  it("identifies itself", function()
    command(0xec, 0, 0)
    local data = hd:read_block(0, 2, 256)
    local function at(n) return data:byte(2 * n + 1) + 256 * data:byte(2 * n + 2) end
    local function text(first, last)
      return (data:sub(2 * first + 1, 2 * last + 2):gsub("(.)(.)", "%2%1"):gsub(" +$", ""))
    end
    assert.equal("LUNAVISOR DISK", text(27, 46))
    assert.equal("LV0", text(10, 19))
    assert.same({ 2, 16, 63 }, { at(1), at(3), at(6) })
    assert.equal(SECTORS, at(60) + 65536 * at(61))
    assert.equal(SECTORS, at(100) + 65536 * at(101))
    assert.equal(0x8010, at(47))
    assert.equal(0x0400, at(83) % 0x800)
    assert.equal(0x50, inp(7))
    assert.equal(0xff, inp(0))
  end)

  it("addresses by cylinder, head and sector, in a geometry that can be set", function()
    local function chs(cylinder, head, sector)
      out(6, 0xa0 + head)
      out(2, 1)
      out(3, sector)
      out(4, cylinder)
      out(5, 0)
      out(7, 0x20)
    end
    chs(1, 2, 3)
    assert.same({ (16 + 2) * 63 + 2 }, read(1))
    out(6, 0xa3)
    out(2, 10)
    out(7, 0x91)
    assert.equal(0x50, inp(7))
    chs(1, 2, 3)
    assert.same({ (4 + 2) * 10 + 2 }, read(1))
    chs(1, 4, 3)
    failed(0x10)
    chs(0, 0, 0)
    failed(0x10)
    chs(0, 0, 11)
    failed(0x10)
  end)

  it("says where a sector is that it has not", function()
    command(0x20, SECTORS - 1, 2)
    failed(0x10)
    assert.same({ 0, 8, 0, 0xe0 }, { inp(3), inp(4), inp(5), inp(6) })
    assert.is_true(hd.lines.irq)
    command(0x30, SECTORS, 1)
    failed(0x10)
    wide(0x24, 2 ^ 40 + 5, 1)
    failed(0x10)
    assert.same({ 5, 0, 0 }, { inp(3), inp(4), inp(5) })
    control(0x80)
    assert.same({ 0, 0, 1 }, { inp(3), inp(4), inp(5) })
  end)

  it("verifies, seeks, flushes and sleeps", function()
    for _, code in ipairs { 0x40, 0x70, 0x10, 0xe0, 0xe1, 0xe2, 0xe3, 0xe7, 0xea } do
      command(code, 1, 1)
      assert.is_true(hd.lines.irq, code)
      assert.equal(0x50, inp(7), code)
    end
    command(0x40, SECTORS, 1)
    failed(0x10)
    command(0xe5, 0, 0)
    assert.equal(0xff, inp(2))
    command(0xf8, 0, 0)
    assert.same({ 0xff, 7, 0 }, { inp(3), inp(4), inp(5) })
    wide(0x27, 0, 0)
    assert.same({ 0xff, 7, 0 }, { inp(3), inp(4), inp(5) })
  end)

  it("takes PIO modes, no DMA, and no command that it does not know", function()
    for mode, status in pairs { [0x0c] = 0x50, [0x20] = 0x51, [0x45] = 0x51 } do
      out(1, 3)
      command(0xef, 0, mode)
      assert.equal(status, inp(7))
    end
    for _, code in ipairs { 0x00, 0xa0, 0xa1, 0xc8, 0xca, 0xff } do
      command(code, 0, 1)
      failed(0x04)
    end
  end)

  it("is not written to where it is read-only", function()
    fresh { master = { image = helper.keep(luna.buffer "64K"), read_only = true } }
    command(0x30, 0, 1)
    failed(0x04)
    assert.equal(0, alternate() - alternate() % 8 - 0x50)
  end)

  it("reads ones where it has no data, and ignores what it has not asked for", function()
    assert.equal(0xffff, hd:read(0, 2))
    hd:write(0, 2, 0x1234)
    command(0x30, 3, 1)
    hd:write_block(0, 2, ("z"):rep(600))
    assert.equal(0x50, inp(7))
    assert.equal("z", image:read(4 * 512 - 1, 1))
    assert.equal(4, image:u32(4 * 512))
  end)
end)

describe("the interrupt", function()
  it("goes with a read of the status, not of the alternate one, and not where it is off", function()
    command(0xe7, 0, 0)
    alternate()
    assert.is_true(hd.lines.irq)
    control(2)
    assert.is_false(hd.lines.irq)
    control(0)
    assert.is_true(hd.lines.irq)
    inp(7)
    assert.is_false(hd.lines.irq)
    command(0xe7, 0, 0)
    command(0x30, 0, 1)
    assert.is_false(hd.lines.irq)
  end)
end)

describe("a channel", function()
  local function signature() return { inp(2), inp(3), inp(4), inp(5), inp(1) } end

  it("is reset by software, both drives at once", function()
    command(0x20, 5, 1, 0)
    control(4)
    assert.equal(0xd0, alternate())
    out(7, 0xec)
    control(0)
    assert.equal(0x50, inp(7))
    assert.is_false(hd.lines.irq)
    assert.same({ 1, 1, 0, 0, 1 }, signature())
    assert.equal(0, inp(6))
  end)

  it("diagnoses itself", function()
    command(0x90, 77, 7)
    assert.is_true(hd.lines.irq)
    assert.equal(0x50, inp(7))
    assert.same({ 1, 1, 0, 0, 1 }, signature())
  end)

  it("has two drives", function()
    local other = helper.keep(luna.buffer "64K")
    other:u32(512, 0x5a5a)
    fresh { slave = { image = other, model = "SECOND", serial = "2" } }
    command(0x20, 1, 1, 1)
    assert.same({ 0x5a5a }, read(1))
    command(0x20, 1, 1, 0)
    assert.same({ 1 }, read(1))
    command(0x20, 200, 1, 1)
    failed(0x10)
    command(0xec, 0, 0, 1)
    assert.equal("ESOCDN", hd:read_block(0, 2, 256):sub(55, 60))
  end)

  it("answers for a drive that is not there", function()
    command(0xec, 0, 1, 1)
    assert.equal(0, inp(7))
    assert.equal(0, alternate())
    assert.is_false(hd.lines.irq)
    out(2, 0x55)
    assert.equal(0x55, inp(2))
    fresh { master = false }
    assert.equal(0x7f, inp(7))
    out(2, 0x55)
    assert.equal(0x7f, inp(2))
    command(0x90, 0, 0)
    assert.equal(0x7f, inp(7))
  end)

  it("keeps what is under way in its state", function()
    command(0x20, 5, 2)
    inp(7)
    hd:read_block(0, 2, 200)
    local saved = hd:save()
    assert.same({ "drives" }, saved.without)
    local one = hd:read_block(0, 2, 312)
    hd = ata { master = image, log = false }
    assert(hd:load(saved))
    assert.equal(one, hd:read_block(0, 2, 312))
    assert.equal(0x50, inp(7))
  end)
end)

describe("an image", function()
  it("is a file that is written, or only a copy of it", function()
    local path = helper.file(("f"):rep(1024 + 100))
    local function write(options)
      options.image = path
      fresh { master = options }
      command(0x30, 1, 1)
      hd:write_block(0, 2, ("w"):rep(512))
      assert.equal(0x50, inp(7))
      command(0x20, 1, 1)
      assert.equal(("w"):rep(512), hd:read_block(0, 2, 256))
      command(0x20, 2, 1)
      failed(0x10)
      local file = assert(io.open(path, "rb"))
      local text = file:read "*a"
      file:close()
      return text
    end
    assert.equal(("f"):rep(1124), write { copy = true })
    assert.equal(("f"):rep(512) .. ("w"):rep(512) .. ("f"):rep(100), write {})
  end)

  it("has in the state what was written to a copy, and nothing else", function()
    fresh { master = { image = image, copy = true } }
    local function write(byte)
      command(0x30, 3, 2)
      hd:write_block(0, 2, byte:rep(1024))
      inp(7)
    end
    write "a"
    local saved = hd:save()
    write "b"
    hd:reset()
    command(0x20, 3, 3)
    assert.equal(("b"):rep(1024) .. image:read(5 * 512, 512), hd:read_block(0, 2, 768))
    assert(hd:load(saved))
    command(0x20, 2, 3)
    assert.equal(image:read(1024, 512) .. ("a"):rep(1024), hd:read_block(0, 2, 768))
    write "c"
    assert(hd:load(saved))
    command(0x20, 3, 1)
    assert.equal(("a"):rep(512), hd:read_block(0, 2, 256))
    assert.equal(3, image:u32(3 * 512))
  end)

  it("keeps the geometry and block size that were set in the state", function()
    command(0xc6, 0, 8)
    out(6, 0xa3)
    out(2, 10)
    out(7, 0x91)
    local saved = hd:save()
    fresh()
    assert(hd:load(saved))
    command(0xec, 0, 0)
    local data = hd:read_block(0, 2, 256)
    assert.equal("\8\1", data:sub(119, 120))
    assert.equal("\4\0\10\0", data:sub(111, 114))
  end)

  it("is refused where it is none", function()
    raises("ata: master: image: the path of a file, or a buffer, expected, got number",
      function() ata { master = 5 } end)
    raises("ata: slave: image: ", function() ata { slave = "no such file" } end)
    raises("ata: master: unknown option 'imgae'", function() ata { master = { imgae = "" } } end)
    local short = helper.file "ten bytes."
    raises("ata: master: image: " .. short .. " has 10 bytes, which is no sector of 512",
      function() ata { master = short } end)
    raises("ata: master: size: 1048577 bytes, and the image has 1048576",
      function() ata { master = { image = image, size = 1048577 } } end)
    raises("ata: master: serial: up to 20 characters expected",
      function() ata { master = { image = image, serial = ("1"):rep(21) } } end)
  end)
end)

helper.kvm("a guest", function()
  it("reads and writes sectors with rep insw and rep outsw", function()
    local g = helper.guest { mode = "long", source = [[
      mov edi, 0x8000
      mov eax, 0x20
      call go
      mov ecx, 256
      rep insw
      mov eax, 0x30
      call go
      mov esi, 0x8000
      mov ecx, 128
      rep outsd
      hlt
      go:
      mov ebx, eax
      mov edx, 0x1f2
      mov al, 1
      out dx, al
      inc edx
      mov al, 9
      out dx, al
      mov edx, 0x1f6
      mov al, 0xe0
      out dx, al
      inc edx
      mov al, bl
      out dx, al
      mov edx, 0x1f0
      ret ]] }
    g.vm:attach(hd, { pio = { command = 0x1f0, control = 0x3f6 } })
    local seen = image:read(9 * 512, 512)
    image:fill(0x77, 9 * 512, 4)
    g:stops "hlt"
    assert.equal(seen:sub(5), g.ram:read(0x8004, 508))
    assert.equal(0x77777777, g.ram:u32(0x8000))
    assert.equal(0x50, inp(7))
    assert.equal(image:read(9 * 512, 512), g.ram:read(0x8000, 512))
    assert.is_true(g.cpu.exits < 300)
  end)
end)

random.describe("ata", function(log)
  return ata { log = log, master = helper.keep(luna.buffer "64K") }
end)

t.registers(function(options)
  options.master = helper.keep(luna.buffer "64K")
  return ata(options)
end)
