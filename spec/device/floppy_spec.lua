-- SPDX-License-Identifier: MIT
-- Floppy disks and drives, in a controller: which disk an image is, how disks come and go, what is
-- refused.

local floppy = require "spec.support.floppy"
local helper = require "spec.support.helper"
local i82077 = require "lunavisor.device.models.i82077"
local luna = require "lunavisor"
local raises = helper.raises

local channel, disk, does, dir = floppy.channel, floppy.disk, floppy.does, floppy.dir
local out, rate, sectors = floppy.out, floppy.rate, floppy.sectors
local seek, send = floppy.seek, floppy.send

local fdc, memory, image

local function fresh(options)
  local made, _, bytes = floppy.fresh(options)
  fdc, memory = made, bytes
end

before_each(function()
  image = disk(1440)
  fresh { drive0 = image }
  rate(0)
end)
after_each(function()
  fdc, memory, image = nil, nil, nil
  floppy.clean()
end)

describe("a disk", function()
  it("is one by its size, at the data rate of that, in the drive for it", function()
    for size, about in pairs { [160] = { 1, 2, 8, 0 }, [180] = { 1, 2, 9, 0 },
      [320] = { 1, 2, 8, 1 }, [360] = { 1, 2, 9, 1 }, [640] = { 4, 2, 8, 1 },
      [720] = { 4, 2, 9, 1 },
      [1200] = { 2, 0, 15, 1 }, [1440] = { 4, 0, 18, 1 }, [1680] = { 4, 0, 21, 1 },
      [2880] = { 5, 3, 36, 1 } } do
      local kind, code, track, side = about[1], about[2], about[3], about[4]
      fresh { drive0 = disk(size) }
      assert.equal(kind, fdc:drive_type(0))
      assert.equal(0, fdc:drive_type(1))
      rate(code)
      seek(2)
      channel(512)
      local head = 4 * side
      does(("%02x 00 00 03 %02x 01 02"):format(head, side), 0x46, head, 2, side, track, 2, track,
        0x1b, 0xff)
      assert.same({ (2 * (side + 1) + side + 1) * track - 1 }, sectors(1))
      does(("%02x 04 00 02 %02x %02x 02"):format(0x40 + head, side, track + 1), 0x46, head, 2,
        side, track + 1, 2, 255, 0x1b, 0xff)
      rate(code == 0 and 2 or 0)
      does(("%02x 01 00 00 00 00 00"):format(0x40 + head), 0x4a, head)
      if side == 0 then does("44 01 00 00 00 00 00", 0x4a, 4) end
    end
  end)

  it("has no more cylinders than it has", function()
    rate(0)
    send(15, 0, 80)
    does("20 50", 8)
    does("40 01 00 00 00 00 00", 0x4a, 0)
  end)

  it("of another size is the beginning of one of 1.44 MB", function()
    local short = helper.keep(luna.buffer "8K")
    floppy.fill(short)
    fresh { drive0 = { image = short, size = 1536 } }
    rate(0)
    channel(2048)
    memory:write(0x1000, ("x"):rep(2048))
    does("00 00 00 00 00 06 02", 0x46, 0, 0, 0, 2, 2, 18, 0x1b, 0xff)
    assert.same({ 1, 2, 0, 0 }, sectors(4))
    channel(512, true)
    does("40 20 20 00 00 04 02", 0x45, 0, 0, 0, 4, 2, 18, 0x1b, 0xff)
    fresh { drive0 = { image = short, size = 1536, copy = true } }
    rate(0)
    channel(512, true)
    memory:write(0x1000, "kept")
    does("00 00 00 00 00 05 02", 0x45, 0, 0, 0, 4, 2, 18, 0x1b, 0xff)
    channel(512)
    does("00 00 00 00 00 05 02", 0x46, 0, 0, 0, 4, 2, 18, 0x1b, 0xff)
    assert.equal("kept", memory:read(0x1000, 4))
  end)

  it("comes and goes, which the line says until the head has moved over one", function()
    assert.equal(0xff, dir())
    out(2, 0x0d)
    assert.equal(0x7f, dir()) -- no drive 1
    out(2, 0x0c)
    seek(1)
    assert.equal(0x7f, dir())
    fdc:eject "drive0"
    assert.equal(0xff, dir())
    seek(0)
    assert.equal(0xff, dir())
    does("40 01 00 00 00 01 02", 0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff)
    local state = fdc:save()
    local other = disk(720)
    other:u32(0, 77)
    fdc:insert(0, other)
    assert.equal(0xff, dir())
    seek(1)
    assert.equal(0x7f, dir())
    seek(0)
    rate(2)
    channel(512)
    does("00 00 00 00 00 02 02", 0x46, 0, 0, 0, 1, 2, 9, 0x1b, 0xff)
    assert.same({ 77 }, sectors(1))
    assert(fdc:load(state)) -- there was none
    does("40 01 00 00 00 00 00", 0x4a, 0)
  end)

  it("is not there in an empty drive", function()
    fresh { drive0 = { image = false, drive = "2.88M" } }
    assert.equal(5, fdc:drive_type(0))
    does("40 01 00 00 00 00 00", 0x4a, 0)
    fdc:insert(0, disk(2880))
    rate(3)
    does("00 00 00 00 00 01 02", 0x4a, 0)
    fresh { drive1 = { image = false } }
    assert.equal(4, fdc:drive_type(1))
  end)

  it("that cannot be is refused", function()
    local function refuses(message, spec)
      raises(message, function() i82077 { drive0 = spec, log = false } end)
    end
    refuses("i82077: drive0: image: a disk of 160, 180, 320, 360, 640, 720, 1200, 1440, 1680, 2880 "
      .. "KiB, or less than 1440, expected, got 2048", helper.keep(luna.buffer "2M"))
    refuses("drive: one of 360K, 720K, 1.2M, 1.44M, 2.88M expected, got 8M",
      { image = image, drive = "8M" })
    refuses("i82077: drive0: image: a drive of 720K takes no disk of 1440 KiB",
      { image = image, drive = "720K" })
    refuses("i82077: drive0: unknown option 'readonly'", { image = image, readonly = true })
    refuses("/nowhere: No such file", "/nowhere")
    raises("floppy:eject: 1 is no drive of i82077", function() fdc:eject(1) end)
    raises("a drive of 1.44M takes no disk of 2880 KiB", function() fdc:insert(0, disk(2880)) end)
  end)
end)
