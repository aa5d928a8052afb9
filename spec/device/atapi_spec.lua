-- SPDX-License-Identifier: MIT
-- A CD drive of an ATA channel against T13/1410D's "PACKET command protocol" and MMC-3.

local ata = require "lunavisor.device.models.ata"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local random = require "spec.support.device"
local t = require "lunavisor.testing"
local raises = helper.raises

local SECTORS = 100
local hd, image

local function out(port, byte) hd:write(port, 1, byte) end
local function inp(port) return hd:read(port, 1) end

-- Sector number n begins with n, in each of its 512 words of 4 bytes.
local function fill(buffer)
  for at = 0, SECTORS * 2048 - 4, 4 do buffer:u32(at, math.floor(at / 2048)) end
end

-- A command of the drive selected.
local function command(code, features, limit)
  out(1, features or 0)
  out(4, (limit or 0xfffe) % 256)
  out(5, math.floor((limit or 0xfffe) / 256))
  out(7, code)
end

-- A packet of bytes, with zeros behind it; how many bytes its first block has, or the error.
local function packet(bytes, limit)
  command(0xa0, 0, limit)
  assert.equal(0x58, inp(7))
  assert.equal(1, inp(2))
  hd:write_block(0, 2, bytes .. ("\0"):rep(12 - #bytes))
  local status = hd.STATUS.value
  if status % 2 == 1 then return nil, inp(1) end
  return inp(4) + 256 * inp(5)
end

-- The answer to a packet: all of its blocks.
local function answer(bytes, limit)
  local count, problem = packet(bytes, limit)
  assert(count, ("error %x"):format(problem or 0))
  local parts = {}
  while hd.STATUS.drq == 1 do
    assert.is_true(hd.lines.irq)
    assert.equal(2, inp(2))
    count = inp(4) + 256 * inp(5)
    inp(7)
    parts[#parts + 1] = hd:read_block(0, 2, count / 2)
  end
  assert.is_true(hd.lines.irq)
  assert.equal(3, inp(2))
  assert.equal(0x50, inp(7))
  return table.concat(parts), #parts
end

local function sense()
  local data = answer "\3\0\0\0\18"
  assert.equal(18, #data)
  assert.same({ 0x70, 10 }, { data:byte(1), data:byte(8) })
  return { data:byte(3), data:byte(13), data:byte(14) }
end

local function refused(bytes, key, code, qualifier)
  local count, problem = packet(bytes)
  assert.is_nil(count)
  assert.equal(key * 16 + 4, problem)
  assert.same({ key, code, qualifier or 0 }, sense())
end

local function fresh(options)
  image = helper.keep(luna.buffer "204800")
  fill(image)
  hd = ata { log = false, master = options or { image = image, cdrom = true } }
end

before_each(function() fresh() end)
after_each(function()
  hd, image = nil, nil
  helper.clean()
end)

describe("a CD drive", function()
  local READY = "\0"

  it("is told from a disk by its signature, until its registers are written", function()
    assert.same({ 1, 1, 0x14, 0xeb, 0 }, { inp(2), inp(3), inp(4), inp(5), inp(7) })
    out(4, 0x55)
    assert.same({ 0x55, 0 }, { inp(4), inp(5) })
    for _, code in ipairs { 0xec, 0x20 } do
      command(code)
      assert.equal(0x51, inp(7))
      assert.equal(4, inp(1))
      assert.same({ 1, 1, 0x14, 0xeb }, { inp(2), inp(3), inp(4), inp(5) })
    end
    command(0x30)
    assert.equal(0x51, inp(7))
  end)

  it("is reset by itself, without an interrupt", function()
    packet("\40\0\0\0\0\1\0\0\2")
    assert.equal(1, hd.STATUS.drq)
    command(0x08)
    assert.is_false(hd.lines.irq)
    assert.equal(0, inp(7))
    assert.same({ 1, 0x14, 0xeb }, { inp(2), inp(4), inp(5) })
    hd:write(0, 2, 0x1234)
    assert.equal(0xffff, hd:read(0, 2))
  end)

  it("identifies itself", function()
    command(0xa1)
    local data = hd:read_block(0, 2, 256)
    local function at(n) return data:byte(2 * n + 1) + 256 * data:byte(2 * n + 2) end
    assert.equal(0x85c0, at(0))
    assert.equal("ULANIVOS RDC    ", data:sub(55, 70))
    assert.equal(0x0a00, at(49))
    assert.equal(0x4000, at(93) - at(93) % 0x4000)
    assert.equal(0x50, inp(7))
  end)

  it("says of itself and of what is in it", function()
    local about = answer("\18\0\0\0\36")
    assert.equal("\5\128\0\33\31\0\0\0LUNA    LUNAVISOR CD    1.0 ", about)
    assert.equal(about:sub(1, 5), answer("\18\0\0\0\5"))
    refused("\18\1\0\0\36", 5, 0x24)
    answer(READY)
    assert.equal("\0\0\0\99\0\0\8\0", answer("\37"))
    assert.equal("\0\34\1\0\0\0\0\0\1\6\0\5\0\0\0\0\42\18\0\0\0\0\41\0",
      answer("\90\0\63\0\0\0\0\1\0"):sub(1, 24))
    assert.equal(28, #answer("\90\0\42\0\0\0\0\1\0"))
    assert.equal(8, #answer("\90\0\42\0\0\0\0\0\8"))
    refused("\90\0\5\0\0\0\0\1\0", 5, 0x24)
    refused("\90\0\255\0\0\0\0\1\0", 5, 0x39)
    assert.equal("\0\0\0\12\0\0\0\8\0\0\3\4\0\8\1\0", answer("\70\0\0\0\0\0\0\1\0"))
    assert.equal(8, #answer("\70\2\0\16\0\0\0\1\0"))
    refused("\85", 5, 0x20)
  end)

  it("has a table of contents: one track, and the lead-out", function()
    assert.equal("\0\18\1\1\0\20\1\0\0\0\0\0\0\20\170\0\0\0\0\100",
      answer("\67\0\0\0\0\0\0\1\0"))
    assert.equal("\0\18\1\1\0\20\1\0\0\0\2\0\0\20\170\0\0\0\3\25",
      answer("\67\2\0\0\0\0\0\1\0"))
    assert.equal("\0\10\1\1\0\20\170\0\0\0\0\100", answer("\67\0\0\0\0\0\170\1\0"))
    assert.equal("\0\10\1\1\0\20\1\0\0\0\0\0", answer("\67\0\1\0\0\0\0\1\0"))
    assert.equal("\0\10\1\1\0\20\1\0\0\0\0\0", answer("\67\0\0\0\0\0\0\1\0\64"))
    assert.equal(4, #answer("\67\0\0\0\0\0\0\0\4"))
    refused("\67\0\0\0\0\0\2\1\0", 5, 0x24)
    refused("\67\0\2\0\0\0\0\1\0", 5, 0x24)
  end)

  it("reads sectors in blocks of as many bytes as the host has said", function()
    local data, blocks = answer("\40\0\0\0\0\5\0\0\3", 2048)
    assert.equal(image:read(5 * 2048, 3 * 2048), data)
    assert.equal(3, blocks)
    data, blocks = answer("\168\0\0\0\0\7\0\0\0\2", 1001)
    assert.equal(image:read(7 * 2048, 2 * 2048), data)
    assert.equal(5, blocks)
    data, blocks = answer("\40\0\0\0\0\0\0\0\100", 0xffff)
    assert.equal(image:read(0, SECTORS * 2048), data)
    assert.equal(4, blocks)
    assert.equal("", (answer "\40\0\0\0\0\5\0\0\0"))
    refused("\40\0\0\0\0\99\0\0\2", 5, 0x21)
    refused("\40\255\255\255\255\255\0\0\1", 5, 0x21)
  end)

  it("does not take a packet with data whose blocks have no bytes, nor overlapped ones", function()
    assert.equal(0, packet("\0", 0))
    assert.equal(3, inp(2))
    assert.is_nil(packet("\40\0\0\0\0\5\0\0\1", 0))
    for _, features in ipairs { 1, 2, 3 } do -- 1: there is no bus master
      command(0xa0, features)
      assert.equal(0x51, inp(7))
      assert.equal(4, inp(1))
    end
  end)

  it("keeps what went wrong until it is asked, once", function()
    packet("\85")
    assert.same({ 5, 0x20, 0 }, sense())
    assert.same({ 0, 0, 0 }, sense())
    packet("\85")
    answer(READY)
    assert.same({ 0, 0, 0 }, sense())
  end)

  it("tells of a medium that comes and goes", function()
    local function event() return answer("\74\1\0\0\16\0\0\0\8"):sub(5, 6) end
    assert.equal("\0\2", event())
    hd:eject "master"
    assert.equal("\3\0", event())
    refused(READY, 2, 0x3a)
    refused("\37", 2, 0x3a)
    refused("\40\0\0\0\0\5\0\0\1", 2, 0x3a)
    local other = helper.keep(luna.buffer "64K")
    other:u32(0, 0x1234)
    hd:insert("master", other)
    assert.equal("\2\2", event())
    assert.equal("\0\2", event())
    refused(READY, 6, 0x28)
    answer(READY)
    assert.equal("\0\0\0\31\0\0\8\0", answer("\37"))
    assert.equal("\52\18", answer("\40\0\0\0\0\0\0\0\1"):sub(1, 2))
    assert.equal("\0\2\128\16", answer("\74\1\0\0\2\0\0\0\8"))
    refused("\74\0\0\0\16\0\0\0\8", 5, 0x24)
  end)

  it("fails where its medium goes in the middle of it", function()
    packet("\40\0\0\0\0\5\0\0\3", 2048)
    hd:read_block(0, 2, 100)
    hd:eject "master"
    hd:read_block(0, 2, 924)
    assert.equal(0x51, inp(7))
    assert.same({ 3, 0x11, 0 }, sense())
  end)

  it("ejects where it is not locked", function()
    answer("\30\0\0\0\1")
    refused("\27\0\0\0\2", 5, 0x53, 2)
    answer(READY)
    answer("\30\0\0\0\0")
    answer("\27\0\0\0\2")
    refused(READY, 2, 0x3a)
    local saved = hd:save()
    hd = ata { log = false, master = { image = image, cdrom = true } }
    assert(hd:load(saved))
    refused(READY, 2, 0x3a)
  end)

  it("can be empty, and stands beside a disk", function()
    fresh { image = false, cdrom = true, model = "TRAY" }
    refused(READY, 2, 0x3a)
    assert.equal("TRAY", answer("\18\0\0\0\36"):match("TRAY"))
    local disk = helper.keep(luna.buffer "64K")
    hd = ata { log = false, master = disk, slave = { image = image, cdrom = true } }
    out(6, 0x10)
    assert.same({ 0x14, 0xeb }, { inp(4), inp(5) })
    out(6, 0)
    assert.same({ 0, 0, 0x50 }, { inp(4), inp(5), inp(7) })
    command(0xec)
    assert.equal(0x58, inp(7))
    command(0xa1)
    assert.equal(0x51, inp(7))
  end)

  it("keeps what is under way in its state", function()
    packet("\40\0\0\0\0\5\0\0\3", 3000)
    inp(7)
    hd:read_block(0, 2, 1000)
    local saved = hd:save()
    local function rest()
      local first = hd:read_block(0, 2, 500)
      inp(7)
      return first .. hd:read_block(0, 2, 1500)
    end
    local one = rest()
    assert.equal(image:read(5 * 2048 + 2000, 4000), one)
    hd = ata { log = false, master = { image = image, cdrom = true } }
    assert(hd:load(saved))
    assert.equal(one, rest())
  end)

  it("says which drives there are to insert a CD into", function()
    raises("ata:insert: slave is no CD drive of ata", function() hd:insert("slave", image) end)
    raises("ata:eject: 0 is no CD drive of ata", function()
      hd = ata { log = false, master = image }
      hd:eject(0)
    end)
    raises("ata: master: image: no such file: ", function()
      ata { master = { image = "no such file", cdrom = true } }
    end)
    raises("ata: master: image: none: ", function()
      hd = ata { log = false, master = { image = false, cdrom = true } }
      hd:insert("master", "none")
    end)
    raises("ata: master: size: 2047 bytes, and the image has 204800; from 2048 to all of it",
      function() ata { master = { image = image, cdrom = true, size = 2047 } } end)
  end)
end)

random.describe("ata with a CD", function(log)
  return ata { log = log, master = { image = helper.keep(luna.buffer "64K"), cdrom = true } }
end)

t.registers(function(options)
  options.slave = { image = helper.keep(luna.buffer "64K"), cdrom = true }
  return ata(options)
end)
