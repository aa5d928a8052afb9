-- SPDX-License-Identifier: MIT
-- The VGA: its registers and planes against IBM's Technical Reference, text and pictures of what it
-- shows, and guests that write to its memory.

local helper = require "spec.support.helper"
local luna = require "lunavisor"
local random = require "spec.support.device"
local screens = require "spec.support.vga"
local vga = require "lunavisor.device.models.vga"

local dev
local access = screens.access(function() return dev end)
local SEQ, GC, CRTC = screens.SEQ, screens.GC, screens.CRTC
local out, inp, set, rd, vbe = access.out, access.inp, access.set, access.rd, access.vbe
local poke, peek, planar, picture = access.poke, access.peek, access.planar, access.picture

before_each(function() dev = vga { log = false } end)
after_each(function()
  dev = nil
  helper.clean()
end)

describe("registers behind an index", function()
  it("keep the bits that there are", function()
    for _, case in ipairs { { SEQ, 0, 3 }, { SEQ, 2, 15 }, { SEQ, 4, 14 }, { GC, 3, 0x1f },
      { GC, 5, 0x7b }, { GC, 8, 255 }, { CRTC, 0x0e, 255 }, { CRTC, 0x18, 255 } } do
      set(case[1], case[2], 255)
      assert.equal(case[3], rd(case[1], case[2]), ("%x %x"):format(case[1], case[2]))
    end
    set(SEQ, 7, 255)
    assert.equal(0, rd(SEQ, 7))
    set(CRTC, 0x19, 255)
    assert.equal(0, rd(CRTC, 0x19))
  end)

  it("of the CRT controller can be protected", function()
    set(CRTC, 0x11, 0x80)
    set(CRTC, 1, 1)
    set(CRTC, 7, 0)
    assert.equal(0x4f, rd(CRTC, 1))
    assert.equal(0x0f, rd(CRTC, 7))
    set(CRTC, 0x11, 0)
    set(CRTC, 1, 1)
    assert.equal(1, rd(CRTC, 1))
  end)

  it("of the attribute controller are index and data in turn, until the status is read", function()
    inp(0x3da)
    out(0x3c0, 0x31)
    out(0x3c0, 0x15)
    out(0x3c0, 0x32)
    inp(0x3da)
    out(0x3c0, 0x31)
    assert.equal(0x15, inp(0x3c1))
    assert.equal(0x31, inp(0x3c0))
    out(0x3c0, 0x16)
    assert.equal(0x16, inp(0x3c1))
  end)

  it("of the DAC come as three parts, and go on by themselves", function()
    out(0x3c8, 254)
    for _, value in ipairs { 1, 2, 0xff, 4, 5, 6, 7 } do out(0x3c9, value) end
    out(0x3c7, 254)
    assert.equal(3, inp(0x3c7))
    local list = {}
    for i = 1, 7 do list[i] = inp(0x3c9) end
    assert.same({ 1, 2, 63, 4, 5, 6, 7 }, list)
    assert.equal(0, inp(0x3c8))
  end)
end)

it("shows retraces that come and go", function()
  local first = inp(0x3da)
  local second = inp(0x3da)
  assert.same({ 9, 9 }, { first + second, math.max(first, second) })
  out(0x3c2, 0x63)
  assert.equal(0x63, inp(0x3cc))
end)

describe("the planes", function()
  before_each(planar)

  it("are written by the map mask, and read by the map select", function()
    set(SEQ, 2, 5)
    poke(100, 0xa5)
    for plane, value in pairs { [0] = 0xa5, 0, 0xa5, 0 } do
      set(GC, 4, plane)
      assert.equal(value, peek(100), plane)
    end
    poke(0x10000, 1)
    assert.equal(255, peek(0x10000))
  end)

  it("have set and reset, a bit mask, rotation and operations in write mode 0", function()
    poke(0, 0xf0)
    peek(0)
    set(GC, 0, 1)
    set(GC, 1, 3)
    set(GC, 8, 0x3c)
    poke(0, 0x00)
    for plane, value in pairs { [0] = 0xfc, 0xc0, 0xc0, 0xc0 } do
      set(GC, 4, plane)
      assert.equal(value, peek(0), plane)
    end
    set(GC, 1, 0)
    set(GC, 8, 255)
    set(GC, 4, 1)
    for case, value in pairs { [0x03] = 0x3f, [0x08] = 0xc0, [0x10] = 0xf9, [0x18] = 0x39 } do
      set(GC, 3, 0)
      poke(5, 0xc0)
      peek(5)
      set(GC, 3, case)
      poke(5, 0xf9)
      assert.equal(value, peek(5), case)
    end
  end)

  it("are copied in write mode 1, and get colours in 2 and 3", function()
    set(SEQ, 2, 6)
    poke(7, 0x42)
    set(SEQ, 2, 15)
    set(GC, 5, 1)
    peek(7)
    poke(9, 0)
    set(GC, 5, 2)
    set(GC, 8, 0x0f)
    peek(9)
    poke(10, 5)
    set(GC, 5, 3)
    set(GC, 8, 255)
    set(GC, 0, 4)
    peek(9)
    poke(11, 0xf0)
    set(GC, 5, 0)
    for plane, values in pairs { [0] = { 0, 0x0f, 0 }, { 0x42, 0x40, 2 }, { 0x42, 0x4f, 0xf2 },
      { 0, 0, 0 } } do
      set(GC, 4, plane)
      assert.same(values, { peek(9), peek(10), peek(11) }, plane)
    end
  end)

  it("are compared with a colour in read mode 1", function()
    for plane, value in pairs { [0] = 0xff, 0x0f, 0x00, 0x33 } do
      set(SEQ, 2, 2 ^ plane)
      poke(3, value)
    end
    set(GC, 5, 8)
    set(GC, 2, 3)
    set(GC, 7, 15)
    assert.equal(0x0c, peek(3))
    set(GC, 7, 7)
    assert.equal(0x0f, peek(3))
  end)

  it("make a picture of 16 colours", function()
    set(GC, 8, 255)
    set(SEQ, 2, 4)
    poke(80 * 3 + 1, 0x81)
    assert.equal(25, (select(2, picture())))
    set(CRTC, 9, 0x40)
    local width, height, pixel = picture()
    assert.same({ 640, 400 }, { width, height })
    assert.same({ "aa0000", "000000", "aa0000" }, { pixel(8, 3), pixel(9, 3), pixel(15, 3) })
  end)
end)

describe("text", function()
  it("is in planes 0 and 1, and its window at 0xb8000", function()
    poke(0x18000, 0x0741, 2)
    poke(0x18000 + 2 * 81, 0x42, 1)
    assert.equal(0x0741, peek(0x18000, 2))
    assert.equal(0xff, peek(0x0000))
    local rows = dev:text()
    assert.same({ 25, "A", " B", "" }, { #rows, rows[1], rows[2], rows[3] })
    set(CRTC, 0x0d, 80)
    assert.equal(" B", dev:text()[1])
    planar()
    set(GC, 4, 0)
    assert.same({}, dev:text())
    assert.equal(0x41, peek(0))
    set(GC, 4, 1)
    assert.equal(0x07, peek(0))
  end)

  it("has a cursor", function()
    set(CRTC, 0x0f, 2 * 80 + 5)
    assert.same({ 5, 2 }, { dev:cursor() })
    set(CRTC, 0x0a, 0x20)
    assert.is_nil(dev:cursor())
    set(CRTC, 0x0a, 0)
    set(CRTC, 0x0e, 8)
    assert.is_nil(dev:cursor())
  end)

  it("is shown in a font of our own where the guest has none", function()
    poke(0x18000, 0x0f54, 2) -- T
    set(CRTC, 0x0a, 0x20)
    local _, _, pixel = picture()
    for y, row in pairs { [0] = ".........", ".#####...", ".#####...", "...#.....",
      [14] = "...#.....", [15] = "........." } do
      local seen = ""
      for x = 0, 8 do seen = seen .. (pixel(x, y) == "ffffff" and "#" or ".") end
      assert.equal(row, seen, y)
    end
  end)

  it("is shown in the font of plane 2, in colours, nine pixels wide", function()
    planar()
    set(SEQ, 2, 4)
    poke(0x41 * 32 + 3, 0x81)
    poke(0xc1 * 32 + 3, 0x01)
    dev:reset()
    poke(0x18000, 0x4e41, 2)
    poke(0x18002, 0x4ec1, 2)
    set(CRTC, 0x0a, 0x20)
    local width, height, pixel = picture()
    assert.same({ 720, 400 }, { width, height })
    assert.same({ "ffff55", "aa0000", "ffff55", "aa0000" },
      { pixel(0, 3), pixel(1, 3), pixel(7, 3), pixel(8, 3) })
    assert.same({ "aa0000", "ffff55", "ffff55" }, { pixel(9, 3), pixel(16, 3), pixel(17, 3) })
    set(SEQ, 1, 1)
    set(CRTC, 0x0a, 0)
    width, height, pixel = picture()
    assert.same({ 640, 400, "ffff55", "aa0000" }, { width, height, pixel(3, 0), pixel(8, 0) })
  end)
end)

describe("mode 13h", function()
  before_each(function()
    set(SEQ, 4, 0x0e)
    set(SEQ, 2, 15)
    set(GC, 6, 5)
    set(GC, 5, 0x40)
    set(CRTC, 9, 0x41)
    out(0x3c8, 200)
    for _, part in ipairs { 63, 0, 32 } do out(0x3c9, part) end
  end)

  it("is linear, a byte a pixel", function()
    poke(320 * 7 + 5, 200)
    poke(320 * 7 + 8, 200 * 0x1010101, 4)
    assert.equal(200, peek(320 * 7 + 5))
    local width, height, pixel = picture()
    assert.same({ 320, 200 }, { width, height })
    assert.same({ "ff0082", "000000", "ff0082" }, { pixel(5, 7), pixel(6, 7), pixel(11, 7) })
  end)

  it("has planes where it is not chained", function()
    set(SEQ, 4, 6)
    set(SEQ, 2, 2)
    poke(80 * 7 + 1, 200)
    local _, _, pixel = picture()
    assert.same({ "000000", "ff0082" }, { pixel(4, 7), pixel(5, 7) })
  end)
end)

describe("VBE", function()
  local function mode(width, height, depth, flags)
    vbe(4, 0)
    vbe(1, width)
    vbe(2, height)
    vbe(3, depth)
    vbe(4, 0x41 + (flags or 0))
  end

  it("says what it is and can", function()
    assert.equal(0xb0c5, vbe(0))
    vbe(0, 0xb0c2)
    assert.equal(0xb0c2, vbe(0))
    vbe(0, 0xb0c6)
    assert.equal(0xb0c2, vbe(0))
    vbe(4, 2)
    assert.same({ 2560, 1600, 32 }, { vbe(1), vbe(2), vbe(3) })
    vbe(4, 0)
    assert.equal(256, vbe(10))
    vbe(10, 1)
    assert.equal(256, vbe(10))
  end)

  it("has modes, which clear memory unless they are not to", function()
    local lfb = dev.regions.lfb
    lfb.write(nil, 0, 4, 0x11223344)
    mode(640, 480, 32, 0x80)
    assert.equal(0x11223344, lfb.read(nil, 0, 4))
    vbe(1, 800)
    assert.equal(640, vbe(1))
    assert.same({ 640, 6553 }, { vbe(6), vbe(7) })
    mode(640, 480, 32)
    assert.equal(0, lfb.read(nil, 0, 4))
    mode(640, 480, 17)
    assert.equal(32, vbe(3))
  end)

  it("shows pictures of all depths, from where it is told", function()
    local lfb = dev.regions.lfb
    for depth, case in pairs { [32] = { 0x102030, 4, "102030" }, [24] = { 0x102030, 3, "102030" },
      [16] = { 0xf81f, 2, "ff00ff" }, [15] = { 0x03e0, 2, "00ff00" }, [8] = { 1, 1, "0000aa" } } do
      mode(64, 32, depth)
      vbe(6, 128)
      vbe(8, 2)
      vbe(9, 3)
      lfb.write(nil, (128 * 5 + 10) * case[2], case[2], case[1])
      local width, height, pixel = picture()
      assert.same({ 64, 32, case[3], "000000" }, { width, height, pixel(8, 2), pixel(9, 2) }, depth)
    end
    mode(64, 32, 8, 0x20)
    out(0x3c8, 7)
    for _, part in ipairs { 0xfe, 0x01, 0x80 } do out(0x3c9, part) end
    lfb.write(nil, 0, 1, 7)
    assert.equal("fe0180", select(3, picture())(0, 0))
  end)

  it("has banks of its memory in the window", function()
    mode(640, 480, 8)
    vbe(5, 2)
    poke(0x123, 0x5a)
    assert.equal(0x5a, dev.regions.lfb.read(nil, 0x20123, 1))
    assert.equal(0xff, peek(0x10000))
  end)
end)

it("has its BIOS in a ROM of PCI, whose place the guest chooses", function()
  local rom = vga { rom = "\85\170\3", log = false }.regions.rom
  assert.equal(0xff03aa55, rom.read(nil, 0, 4))
  rom.write(nil, 0, 4, 0)
  assert.equal(0xaa55, rom.read(nil, 0, 2))
  assert.equal(0xff, dev.regions.rom.read(nil, 0, 1))
  helper.raises("vga: rom: a string of up to 65536 bytes expected, got number",
    function() vga { rom = 5 } end)
end)

it("says where a screenshot cannot be", function()
  local ok, message = dev:screenshot "/no/such/folder/a.png"
  assert.is_nil(ok)
  helper.contains("vga:screenshot: /no/such/folder/a.png", message)
  helper.raises("vga:screenshot: the path of a file expected, got nil",
    function() dev:screenshot() end)
end)

helper.kvm("a guest", function()
  it("has text, mode 13h and the framebuffer as plain memory", function()
    local g = helper.guest { mode = "long", size = "64K", source = [[
      mov edi, 0xb8000
      mov eax, 0x1f411f40
      mov ecx, 1000
      rep stosd
      mov edx, 0x3c4
      mov eax, 0x0f02
      out dx, ax
      mov eax, 0x0e04
      out dx, ax
      mov edx, 0x3ce
      mov eax, 0x0506
      out dx, ax
      mov ebx, [0xa0000]          ; two characters, of which planes 2 and 3 have nothing
      mov edi, 0xa0000 + 16
      mov eax, 0x44332211
      mov ecx, 15996
      rep stosd
      mov eax, 0x33221100
      mov edi, 0xe0000000
      mov [rdi + 0x120000], eax
      mov esi, [rdi + 16]         ; and the framebuffer is that memory too
      mov edx, 0x3c4
      mov eax, 0x0302
      out dx, ax
      mov eax, 0x0204
      out dx, ax
      mov edx, 0x3ce
      mov eax, 0x0e06
      out dx, ax
      mov eax, [0xb8006]
      hlt ]] }
    g.vm:attach(dev, { pio = { io = 0x3c0, vbe = 0x1ce },
      mmio = { window = 0xa0000, lfb = 0xe0000000 } })
    g:stops "hlt"
    local seen = {}
    for i, name in ipairs { "rbx", "rsi", "rax" } do seen[i] = luna.u64.tonumber(g.cpu[name]) end
    assert.same({ 0x1f40, 0x44332211, 0x22111f41 }, seen)
    assert.equal("@A@A" .. ("\17"):rep(76):gsub("%c", " "):gsub(" +$", ""), dev:text()[1])
    assert.equal(0x44, dev.linear:u8(63999))
    assert.equal(0x33221100, dev.linear:u32(0x120000))
    assert.is_true(g.cpu.exits < 14)
    dev = nil
  end)
end)

it("keeps registers and palette in its state", function()
  planar()
  out(0x3c8, 9)
  out(0x3c9, 33)
  local saved = dev:save()
  local other = vga { log = false }
  assert.truthy(other.regions.window.exposed)
  assert(other:load(saved))
  assert.is_false(other.regions.window.exposed)
  other.regions.io.write(nil, 7, 1, 9)
  assert.equal(33, other.regions.io.read(nil, 9, 1))
end)

random.describe("vga", function(log) return vga { log = log } end)
