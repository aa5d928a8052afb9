-- SPDX-License-Identifier: MIT
-- The bus master of a PIIX3 and the drives behind it, against the Programming Interface for Bus
-- Master IDE Controller and T13/1410D's "DMA command protocol".

local ata = require "lunavisor.device.models.ata"
local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local pci = require "lunavisor.device.models.pci"
local pci_host = require "lunavisor.device.models.pci_host"
local piix3_ide = require "lunavisor.device.models.piix3_ide"
local raises = helper.raises

local SECTORS = 2048
local TABLE = 0x800 -- of regions, in memory

local hd, ide, image, memory

local function out(port, byte) hd:write(port, 1, byte) end
local function inp(port) return hd:read(port, 1) end
local function put(port, size, value) ide.regions.master.write(nil, port, size, value) end
local function get(port) return ide.regions.master.read(nil, port, 1) end

local function command(code, sector, count)
  out(6, 0xe0)
  out(2, count)
  for i = 0, 2 do out(3 + i, math.floor(sector / 256 ^ i) % 256) end
  out(7, code)
end

-- The table of regions { gpa, bytes }, the last of which says so.
local function regions(list)
  for i, one in ipairs(list) do
    local last = i == #list and 2 ^ 31 or 0
    memory:write(TABLE + 8 * i - 8, string.char(one[1] % 256, math.floor(one[1] / 256) % 256,
      math.floor(one[1] / 65536) % 256, 0, one[2] % 256, math.floor(one[2] / 256) % 256, 0,
      last > 0 and 128 or 0))
  end
  put(4, 4, TABLE)
end

local function start(to_memory) put(0, 1, to_memory and 9 or 1) end
local function status() return get(2) % 8 end -- 1 active, 2 error, 4 interrupt
local function sector(n) return image:read(512 * n, 512) end

before_each(function()
  image = helper.keep(luna.buffer(SECTORS * 512))
  for at = 0, image.size - 4, 4 do image:u32(at, at) end
  memory = device.memory(0x40000)
  hd = ata { log = false, master = image }
  ide = piix3_ide { log = false, primary = hd, dma = memory }
  ide.PCI_COMMAND.value = 5
end)
after_each(function()
  hd, ide, image, memory = nil, nil, nil, nil
  helper.clean()
end)

describe("the bus master", function()
  it("takes sectors of a drive to the regions of its table", function()
    regions { { 0x1000, 512 }, { 0x3000, 1024 } }
    command(0xc8, 5, 3)
    assert.equal(0xd0, hd.STATUS.value)
    assert.is_false(hd.lines.irq)
    start(true)
    assert.equal(sector(5), memory:read(0x1000, 512))
    assert.equal(sector(6) .. sector(7), memory:read(0x3000, 1024))
    assert.is_true(hd.lines.irq)
    assert.equal(4, status())
    assert.equal(0x50, inp(7))
    put(2, 1, 4)
    put(0, 1, 0)
    assert.equal(0, status())
  end)

  it("can be started before the drive is", function()
    regions { { 0x1000, 512 } }
    start(true)
    assert.equal(1, status())
    command(0xc9, 9, 1)
    assert.equal(sector(9), memory:read(0x1000, 512))
    assert.equal(4, status())
  end)

  it("gives the drive what is in memory, also in pieces that are no sectors", function()
    memory:write(0x1000, ("a"):rep(100) .. ("b"):rep(924))
    memory:write(0x2001, ("c"):rep(513))
    regions { { 0x1000, 100 }, { 0x1064, 924 }, { 0x2000, 512 } }
    command(0xca, 20, 3)
    start(false)
    assert.equal(4, status())
    assert.equal(0x50, inp(7))
    assert.equal(("a"):rep(100) .. ("b"):rep(924), image:read(20 * 512, 1024))
    assert.equal("\0" .. ("c"):rep(511), image:read(22 * 512, 512))
    assert.equal(23 * 512, image:u32(23 * 512))
  end)

  it("takes 0 bytes for 64 KiB, and addresses of 48 bits", function()
    regions { { 0x10000, 0 } }
    out(6, 0x40)
    for _, byte in ipairs { { 2, 0 }, { 3, 0 }, { 4, 0 }, { 5, 0 }, { 2, 128 }, { 3, 1 }, { 4, 1 },
      { 5, 0 }, { 7, 0x25 } } do out(byte[1], byte[2]) end
    start(true)
    assert.equal(image:read(257 * 512, 65536), memory:read(0x10000, 65536))
    assert.equal(4, status())
  end)

  it("stays active where its table has more than the drive", function()
    regions { { 0x1000, 1024 }, { 0x2000, 512 } }
    command(0xc8, 1, 1)
    start(true)
    assert.equal(5, status())
    assert.equal(sector(1), memory:read(0x1000, 512))
    assert.equal(("\0"):rep(512), memory:read(0x1200, 512))
    put(0, 1, 8)
    assert.equal(4, status())
  end)

  it("is idle without an interrupt where the drive has more than its table", function()
    regions { { 0x1000, 512 } }
    command(0xc8, 1, 2)
    start(true)
    assert.equal(0, status())
    assert.equal(0xd0, inp(7))
    hd.regions.control.write(nil, 0, 1, 4)
    hd.regions.control.write(nil, 0, 1, 0)
    assert.equal(0x50, inp(7))
  end)

  it("says so where there is no memory, or the other way was meant", function()
    regions { { 0x1000, 512 }, { 0xfff000, 512 } }
    command(0xc8, 1, 2)
    start(true)
    assert.equal(2, status())
    assert.equal(sector(1), memory:read(0x1000, 512))
    put(2, 1, 2)
    assert.equal(0, status())
    put(0, 1, 0)
    hd:reset()
    put(4, 4, 0xfff000)
    command(0xc8, 1, 1)
    start(true)
    assert.equal(2, status())
    put(2, 1, 2)
    put(0, 1, 0)
    hd:reset()
    regions { { 0x1000, 512 } }
    command(0xca, 1, 1)
    start(true)
    assert.equal(2, status())
  end)

  it("does nothing until it is a bus master", function()
    ide.PCI_COMMAND.value = 1
    regions { { 0x1000, 512 } }
    command(0xc8, 1, 1)
    start(true)
    assert.equal(1, status())
    assert.equal(("\0"):rep(512), memory:read(0x1000, 512))
  end)

  it("notes the interrupts of transfers without it, too", function()
    command(0x20, 1, 1)
    assert.equal(4, status())
  end)

  it("has two channels, of which one can be missing", function()
    regions { { 0x1000, 512 } }
    put(8, 1, 9)
    assert.equal(0, status())
    assert.equal(1, get(10) % 8)
    put(8, 1, 0)
    assert.equal(0, get(10) % 8)
    put(2, 1, 0x60)
    assert.equal(0x60, get(2))
  end)

  it("takes a CD's sectors", function()
    hd = ata { log = false, slave = { image = image, cdrom = true } }
    ide = piix3_ide { log = false, secondary = hd, dma = memory }
    ide.PCI_COMMAND.value = 5
    regions { { 0x1000, 4096 } }
    put(12, 4, TABLE)
    out(6, 0x10)
    out(1, 1)
    out(7, 0xa0)
    hd:write_block(0, 2, "\40\0\0\0\0\9\0\0\2\0\0\0")
    put(8, 1, 9)
    assert.equal(image:read(9 * 2048, 4096), memory:read(0x1000, 4096))
    assert.equal(4, get(10) % 8)
    assert.is_true(hd.lines.irq)
    assert.equal(3, inp(2))
    assert.equal(0x50, inp(7))
  end)

  it("makes the drive offer modes, and takes those", function()
    local function words()
      command(0xec, 0, 1)
      local data = hd:read_block(0, 2, 256)
      return function(n) return data:byte(2 * n + 1) + 256 * data:byte(2 * n + 2) end
    end
    local at = words()
    assert.same({ 0x0b00, 7, 7, 0x3f }, { at(49), at(53), at(63), at(88) })
    for mode, code in pairs { [0x22] = 0x50, [0x45] = 0x50, [0x23] = 0x51, [0x46] = 0x51 } do
      out(1, 3)
      command(0xef, 0, mode)
      assert.equal(code, inp(7), mode)
    end
    out(1, 3)
    command(0xef, 0, 0x44)
    assert.equal(0x103f, words()(88))
    out(1, 3)
    command(0xef, 0, 0x22)
    assert.equal(0x0407, words()(63))
    local saved = hd:save()
    hd:reset()
    assert.equal(7, words()(63))
    assert(hd:load(saved))
    assert.equal(0x0407, words()(63))
  end)

  it("keeps what is under way in its state, and that of the drive", function()
    regions { { 0x1000, 512 }, { 0x2000, 512 } }
    command(0xc8, 5, 2)
    local saved, drive = ide:save(), hd:save()
    hd = ata { log = false, master = image }
    ide = piix3_ide { log = false, primary = hd, dma = memory }
    assert(hd:load(drive))
    assert(ide:load(saved))
    start(true)
    assert.equal(sector(5), memory:read(0x1000, 512))
    assert.equal(4, status())
  end)

  it("wants channels that are such", function()
    raises("piix3_ide: primary: a device ata expected",
      function() piix3_ide { primary = image } end)
    raises("piix3_ide: secondary: a device ata expected",
      function() piix3_ide { secondary = ide } end)
  end)
end)

helper.kvm("a guest", function()
  it("sets the bus master up through PCI and has a sector by interrupt", function()
    local g = helper.guest { mode = "long", source = [[
      mov dx, 0xcf8
      mov eax, 0x80000920
      out dx, eax
      mov dx, 0xcfc
      mov eax, 0xc000
      out dx, eax                   ; BAR 4
      mov dx, 0xcf8
      mov eax, 0x80000904
      out dx, eax
      mov dx, 0xcfc
      mov ax, 5
      out dx, ax                    ; I/O, bus master
      mov dword [0x7000], 0x8000
      mov dword [0x7004], 0x80000200
      mov dx, 0xc004
      mov eax, 0x7000
      out dx, eax
      mov dx, 0x1f2
      mov al, 1
      out dx, al
      inc edx
      mov al, 3
      out dx, al
      mov dx, 0x1f6
      mov al, 0xe0
      out dx, al
      inc edx
      mov al, 0xc8
      out dx, al
      mov dx, 0xc000
      mov al, 9
      out dx, al
      mov dx, 0xc002
      again:
      in al, dx
      test al, 4
      jz again
      mov bl, al
      mov eax, [0x8004]
      hlt ]] }
    local host = pci_host { map = pci.mapper(g.vm), log = false }
    g.vm:attach(hd, { pio = { command = 0x1f0, control = 0x3f6 } })
    g.vm:attach(host, { pio = { main = 0xcf8, data = 0xcfc } })
    ide = host:add(piix3_ide { log = false, primary = hd }, 1, 1)
    assert.equal(ide, g.vm.devices.piix3_ide)
    g:stops "hlt"
    assert.equal(luna.u64(3 * 512 + 4), g.cpu.rax)
    assert.equal(4, luna.u64.tonumber(g.cpu.rbx) % 256)
    assert.equal(sector(3), g.ram:read(0x8000, 512))
  end)
end)
