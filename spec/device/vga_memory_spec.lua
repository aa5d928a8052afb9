-- SPDX-License-Identifier: MIT
-- The VGA's memory, of which text, chained and planar modes and the framebuffer are views: what one
-- writes the others show, and all of it is in states.

local helper = require "spec.support.helper"
local screens = require "spec.support.vga"
local vga = require "lunavisor.device.models.vga"

local dev
local access = screens.access(function() return dev end)
local SEQ, GC, CRTC = screens.SEQ, screens.GC, screens.CRTC
local set, vbe = access.set, access.vbe
local poke, peek, planar, picture = access.poke, access.peek, access.planar, access.picture

before_each(function() dev = vga { log = false } end)
after_each(function()
  dev = nil
  helper.clean()
end)

describe("the memory", function()
  -- Modes as they are from the bytes of the planes on: chained, in planes of 256 colours, text.
  local function chain()
    set(SEQ, 4, 0x0e)
    set(SEQ, 2, 15)
    set(GC, 6, 5)
    set(GC, 5, 0x40)
    set(CRTC, 9, 0x41)
  end

  local function mode_x()
    chain()
    set(SEQ, 4, 6)
  end

  local function text()
    set(SEQ, 4, 2)
    set(SEQ, 2, 3)
    set(GC, 6, 0x0e)
    set(GC, 5, 0x10)
    set(GC, 4, 0)
    set(CRTC, 9, 0x4f)
  end

  -- The bytes of the planes at an address, as the processor reads them.
  local function planes(at)
    mode_x()
    local list = {}
    for plane = 0, 3 do
      set(GC, 4, plane)
      list[plane + 1] = peek(at)
    end
    return list
  end

  it("has what is chained in plane address & 3, at the same address of each", function()
    chain()
    poke(0x1234, 0x44332211, 4)
    poke(0xfffd, 0x99)
    assert.same({ 0x11, 0x22, 0x33, 0x44 }, planes(0x1234 / 4))
    assert.same({ 0, 0x99, 0, 0 }, planes(0xffff / 4 - 0.75))
    set(SEQ, 2, 6)
    poke(0x1234 / 4, 0x77)
    chain()
    assert.equal(0x44777711, peek(0x1234, 4))
    assert.equal(0x77, dev.linear:u8(0x1235))
  end)

  it("shows in planes what was drawn chained, and all of it what mode X draws", function()
    chain()
    poke(320 * 10 + 6, 5)
    mode_x()
    set(SEQ, 2, 8)
    poke(80 * 10 + 1, 4)
    set(SEQ, 2, 15)
    poke(80 * 210, 3) -- beyond what is chained: the second page
    local _, _, pixel = picture()
    assert.same({ "aa00aa", "aa0000", "000000" }, { pixel(6, 10), pixel(7, 10), pixel(8, 10) })
    set(CRTC, 0x0c, 80 * 200 / 256)
    set(CRTC, 0x0d, 80 * 200 % 256)
    _, _, pixel = picture()
    assert.same({ "00aaaa", "00aaaa", "000000" }, { pixel(0, 10), pixel(3, 10), pixel(4, 10) })
    chain()
    set(CRTC, 0x0c, 0)
    set(CRTC, 0x0d, 0)
    _, _, pixel = picture()
    assert.same({ "aa00aa", "aa0000" }, { pixel(6, 10), pixel(7, 10) })
  end)

  it("follows the map mask and the graphics controller where it is chained, too", function()
    chain()
    set(SEQ, 2, 0x0d)
    poke(0, 0x04030201, 4)
    set(SEQ, 2, 15)
    set(GC, 8, 0x0f)
    assert.is_false(dev.regions.window.exposed)
    assert.equal(0x04030001, peek(0, 4))
    poke(2, 0xff)
    set(GC, 8, 0xff)
    set(GC, 1, 15)
    set(GC, 0, 8)
    poke(4, 0x55555555, 4)
    set(GC, 1, 0)
    assert.truthy(dev.regions.window.exposed)
    assert.equal(0x040f0001, peek(0, 4))
    assert.equal(0xff000000, peek(4, 4))
  end)

  it("has text in planes 0 and 1, and its font in plane 2, whatever is written first", function()
    poke(0x18000, 0x1f41, 2)
    assert.same({ 0x41, 0x1f, 0, 0 }, planes(0))
    set(SEQ, 2, 4)
    poke(0x41 * 32, 0x3c)
    set(SEQ, 2, 1)
    poke(1, 0x5a)
    text()
    assert.equal(0x005a1f41, peek(0x18000, 4))
    poke(0x18002, 0x4e42, 2)
    assert.same({ "AB" }, { dev:text()[1] })
    assert.same({ 0x42, 0x4e, 0, 0 }, planes(1))
    assert.same({ 0, 0, 0x3c, 0 }, planes(0x41 * 32))
    chain()
    assert.equal(0x00004e42, peek(4, 4))
  end)

  it("has the other two planes where odd and even select them", function()
    mode_x()
    set(SEQ, 2, 12)
    poke(8, 0x61)
    text()
    set(GC, 4, 2)
    set(SEQ, 2, 15)
    assert.equal(0x6161, peek(0x18010, 2))
    poke(0x18010, 0x62)
    poke(0x18011, 0x63)
    assert.same({ 0x62, 0x63, 0x62, 0x63 }, planes(8))
  end)

  it("is the linear framebuffer, of which text takes no more than it writes", function()
    local lfb = dev.regions.lfb
    poke(0x18000, 0x1f41, 2)
    poke(0x18004, 0x1f43, 2)
    lfb.write(nil, 4, 4, 0x0d0c0b0a)
    assert.same({ 0x0a, 0x0b, 0x0c, 0x0d }, planes(1))
    assert.same({ 0x41, 0x1f, 0, 0 }, planes(0))
    mode_x()
    set(SEQ, 2, 15)
    poke(2, 0x77)
    assert.equal(0x77777777, lfb.read(nil, 8, 4))
    vbe(1, 640)
    vbe(2, 480)
    vbe(3, 8)
    vbe(4, 0x41)
    assert.equal(0, peek(8, 4))
    vbe(4, 0)
    text()
    assert.equal("", dev:text()[1])
  end)

  it("shows text that comes through the linear framebuffer, at once and both ways", function()
    local lfb = dev.regions.lfb
    poke(0x18000, 0x1f41, 2)
    lfb.write(nil, 4, 2, 0x1e42)           -- the second character
    assert.equal(0x1e421f41, peek(0x18000, 4))
    poke(0x18002, 0x43)
    assert.equal(0x1e43, lfb.read(nil, 4, 2))
    lfb.write(nil, 0x3ffff, 1, 9)          -- other planes are nobody's text
    assert.equal(9, dev.linear:u8(0x3ffff))
    assert.equal(0x1e431f41, peek(0x18000, 4))
    assert.equal("AC", dev:text()[1])
    dev.linear:u8(8, 0x44)                 -- a script's, which counts once somebody looks
    assert.equal("ACD", dev:text()[1])
    assert.equal(0x44, peek(0x18004))
    dev.linear:u8(8, 0x45)
    poke(0x18004, 0x46)                    -- where both were written, the guest's text counts
    assert.equal("ACF", dev:text()[1])
    dev.linear:u8(12, 0x47)
    local saved = dev:save()
    dev = vga { log = false }
    assert(dev:load(saved))
    assert.equal("ACFG", dev:text()[1])
    assert.equal(0x47, peek(0x18006))
    lfb = dev.regions.lfb
    assert.equal(0x46, lfb.read(nil, 8, 1))
    assert.equal(255, lfb.read(nil, 0x1000000, 1))
  end)

  it("loads latches from chained addresses, for copies", function()
    set(SEQ, 4, 0x0e)
    set(SEQ, 2, 15)
    set(GC, 6, 5)
    poke(16, 0x44332211, 4)
    set(GC, 5, 0x41)
    peek(17)
    set(SEQ, 4, 6)
    poke(9, 0)
    assert.same({ 0x11, 0x22, 0x33, 0x44 }, planes(9))
  end)

  it("is in states, in each mode", function()
    local function both(what)
      local saved = dev:save()
      assert.same({}, saved.without)
      local _, _, pixel = picture()
      local rows, first = dev:text(), dev
      local seen = {}
      for i = 0, 15 do seen[i] = pixel(i * 7, i) end
      dev = vga { log = false }
      assert(dev:load(saved))
      assert.same(saved, dev:save(), what)
      assert.same(rows, dev:text(), what)
      _, _, pixel = picture()
      for i = 0, 15 do assert.equal(seen[i], pixel(i * 7, i), what) end
      assert.is_nil(first.linear:compare(0, dev.linear))
    end
    for i = 0, 100 do poke(0x18000 + 2 * i, 0x0741 + i, 2) end
    both "text"
    assert.equal("ABC", dev:text()[1]:sub(1, 3))
    poke(0x18000, 0x58)
    assert.equal("XBC", dev:text()[1]:sub(1, 3))
    chain()
    for i = 0, 15 do poke(i * 327, i) end
    both "mode 13h"
    mode_x()
    set(SEQ, 2, 2)
    poke(0, 14)
    both "mode X"
    planar()
    set(CRTC, 9, 0)
    both "planes"
    vbe(1, 64)
    vbe(2, 32)
    vbe(3, 32)
    vbe(4, 0x41)
    for i = 0, 15 do dev.regions.lfb.write(nil, 4 * (64 * i + 7 * i), 4, 0x123456 * i) end
    both "VBE"
  end)
end)

helper.kvm("a guest in text mode", function()
  it("meets the same text in the window and in the linear framebuffer, whose rest is memory",
    function()
      local g = helper.guest { mode = "long", size = "64K", source = [[
        mov edi, 0xe0000000
        mov word [rdi + 4], 0x0742
        mov word [0xb8000], 0x0741
        mov bx, [0xb8002]
        mov cx, [rdi]
        mov dword [rdi + 0x40000], 5  ; no exit, from here on
        mov word [0xb8004], 0x0743
        hlt
        mov cx, [rdi + 8]
        hlt ]] }
      g.vm:attach(dev, { pio = { io = 0x3c0, vbe = 0x1ce },
        mmio = { window = 0xa0000, lfb = 0xe0000000 } })
      g:stops "hlt"
      assert.equal(3, g.cpu.exits)
      assert.same({ 0x742, 0x741 }, { tonumber(g.cpu.rbx), tonumber(g.cpu.rcx) })
      assert.equal("ABC", dev:text()[1])
      assert.equal(5, dev.linear:u32(0x40000))
      g:stops "hlt"
      assert.equal(0x743, tonumber(g.cpu.rcx))
      dev = nil
    end)
end)
