-- SPDX-License-Identifier: MIT
-- Recordings of the memory of devices (`buffers` of their tables): what a script writes there comes
-- again in a replay, and what the memory has come to is compared.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local t = require "lunavisor.testing"
local vga = require "lunavisor.device.models.vga"
local contains, said = helper.contains, helper.said

local path
before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

-- A device that adds up bytes of its memory, and writes to it at a write.
local function made(own)
  return device "made" {
    registers = {
      SUM = { at = 0, access = "ro", read = function(dev)
        local sum = 0
        for _, at in ipairs { 0, 1, 5, 100, 4095, 4096, 8000 } do sum = sum + dev.page:u8(at) end
        return sum
      end },
      PUT = { at = 4, access = "wo", write = function(dev, value)
        dev.page:fill(own or value, 6000, 10)
        dev.page:view(4096):u8(0, 3)
      end },
    },
    buffers = { page = 8192, more = 4096 },
    timers = { tick = function(dev) dev.more:u8(7, 1) end },
  }
end

local function record(kind, fn)
  local bus = t.bus(kind)
  local recording = assert(bus:record(path))
  fn(bus, bus.device)
  recording:close()
  return bus
end

describe("a recording of a device with memory", function()
  it("has what a script writes to it, in every way, and not what the device does", function()
    local source = helper.keep(luna.buffer(4096))
    source:write(8, "copied")
    local sums = {}
    local function look(bus) sums[#sums + 1] = bus:read32 "SUM" end
    local bus = record(made(), function(bus, dev)
      local page = dev.page
      page:u8(0, 5)
      look(bus)
      page:u16(1, 0x0102)
      page:u32(4096, 0xfffffffe)
      page:u64(luna.u64(4088), luna.u64(0x12345678, 0x9abcdef0))
      page:write(99, "\1\2\3")
      look(bus)
      page:fill(9, 8000, 2)
      page:copy(4, source, 8, 3)
      look(bus)
      page:view(4096, 4096):view(3000):u8(904, 1)
      page:copy(4, source)
      look(bus)
      bus:write32("PUT", 7)
      dev:after(1, "tick")
      bus:pass(2)
      assert.has_error(function() page:u8(8192, 1) end)
      assert.has_error(function() page:write(0) end)
      look(bus)
      page:u8(0)
      page:fill(0)
      look(bus)
      dev.more:u8(9, 1)
    end)
    local text = files.read(path)
    for _, line in ipairs { "p1 0 page 0 05", "p1 0 page 1 0201", "p1 0 page 1000 feffffff",
      "p1 0 page ff8 f0debc9a78563412", "p1 0 page 63 010203", "P1 0 page 1f40 2 09",
      "p1 0 page 4 636f70", "p1 0 page 1f40 01", "P1 0 page 0 2000 00", "p1 0 more 9 01" } do
      contains("\n" .. line .. "\n", text)
    end
    contains("\np1 0 page 4 0000000000000000636f70696564", text)
    local _, count = text:gsub("\n[pP]1 ", "")
    assert.equal(11, count)
    assert.truthy(text:find "\nh1 more 0:%x+\nh1 page \n")
    for _, method in ipairs { "u8", "u64", "write", "fill", "copy", "view" } do
      assert.is_nil(rawget(bus.device.page, method))
    end
    assert.equal(#sums + 1, t.replay(path, t.bus(made())).accesses)
    assert.same({ 5, 5 + 2 + 0xfe + 2 + 0x12 }, { sums[1], sums[2] })
  end)

  it("has what another device writes to it, for a replay without that", function()
    local other = made() { log = false, name = "other" }
    local driver = device "driver" { registers = {
      GO = { at = 0, write = function(_, value) other.page:u8(5, value) end } } } { log = false }
    local vm = helper.keep(assert(luna.vm { accel = "soft", clock = device.clock() }))
    vm:attach(driver, { mmio = 0xd0000000 })
    vm:attach(other, { mmio = 0xd0001000 })
    local recording = assert(vm:record(path))
    driver:write(0, 4, 9)
    assert.equal(9, other:read(0, 4))
    recording:close()
    contains("\np2 1 page 5 09\n", files.read(path))
    assert.equal(2, t.replay(path, { other = t.bus(made()) }).accesses)
    vm:close()
  end)

  it("knows at the end where its memory is not as it was", function()
    local kind = made()
    record(kind, function(bus, dev)
      bus:write32("PUT", 7)
      dev.more:u8(4095, 1)
    end)
    t.replay(path, t.bus(kind))
    contains("at the end, behind access 1, buffer page of made is not as it was, from the page at "
      .. "0x1000 on; what was written through its pointer or an address of the guest's is not in a "
      .. "recording", said(t.replay, path, t.bus(made(8))))
  end)

  it("says so too of what nobody could note", function()
    local vm = helper.keep(assert(luna.vm { accel = "soft" }))
    record(made(), function(bus, dev)
      vm.default:map(dev.more, 0x5000)
      vm.default:write(0x5ffc, "lost")
      bus:read32 "SUM"
    end)
    contains("behind access 1, buffer more of made is not as it was, from the page at 0x0 on",
      said(t.replay, path, t.bus(made())))
    vm:close()
  end)

  it("has memory that is gone in the middle of it, with a device that is replaced", function()
    local vm = helper.keep(assert(luna.vm { accel = "soft", clock = device.clock() }))
    local dev = vm:attach(made() { log = false }, { mmio = 0xd0001000 })
    local recording = assert(vm:record(path))
    dev.page:u8(5, 1)
    vm:replace(dev, made())
    vm.devices.made.page:u8(5, 2)
    assert.equal(2, vm.devices.made:read(0, 4))
    recording:close()
    local _, count = files.read(path):gsub("\nh%d page", "")
    assert.equal(2, count)
    t.replay(path, t.bus(made()))
    vm:close()
  end)

  it("is written anew with what its memory is now, and with its fields as they were set", function()
    local function kind(own)
      return device "renewed" { state = { times = 1 }, buffers = { page = 4096 }, registers = {
        PUT = { at = 0, write = function(dev, value) dev.page:u8(0, own + value * dev.times) end },
      } }
    end
    record(kind(0), function(bus, dev)
      dev.times = 3
      bus:write32("PUT", 5)
      dev.page:fill(4, 8, 2)
    end)
    local before = files.read(path)
    local getenv = os.getenv
    os.getenv = function(name) -- luacheck: ignore
      return name == "LUNA_GOLDEN" and "renew" or getenv(name)
    end
    t.replay(path, t.bus(kind(0)))
    local same = files.read(path)
    t.replay(path, t.bus(kind(1)))
    os.getenv = getenv -- luacheck: ignore
    assert.equal(before, same)
    assert.are_not.equal(before, files.read(path))
    t.replay(path, t.bus(kind(1)))
    contains("buffer page of renewed", said(t.replay, path, t.bus(kind(0))))
  end)

  it("is refused where its lines are damaged", function()
    record(made(), function(_, dev)
      dev.page:u8(0, 5)
      dev.page:fill(1)
    end)
    local whole = files.read(path)
    for from, to in pairs { ["p1 0 page 0 05"] = "p1 0 page 0 5", ["P1 0 page 0 2000 01"] =
      "P1 0 page 0 01", ["h1 page "] = "h1 ", ["p1 0 page"] = "p2 0 page" } do
      local file = assert(io.open(path, "wb"))
      file:write((whole:gsub(from, to, 1)))
      file:close()
      contains("the recording is damaged: ", said(t.replay, path, t.bus(made())))
    end
  end)
end)

helper.kvm("a recording of a screen", function()
  it("is the same picture in a replay, whoever has drawn it", function()
    local g = helper.guest { source = [[
      mov ax, 0xb800
      mov ds, ax
      mov word [0], 0x0741
      mov word [2], 0x0742
      mov ax, [0]
      mov word [4], ax
      hlt
      mov word [6], 0x0743
      hlt ]], size = "64K" }
    local dev = g.vm:attach(vga { log = false }, { pio = { io = 0x3c0, vbe = 0x1ce },
      mmio = { window = 0xa0000, lfb = 0xe0000000 } })
    local recording = assert(g.vm:record(path))
    g:stops "hlt"
    dev.linear:u16(4 * 8, 0x0744)           -- the ninth character
    g:stops "hlt"
    assert.equal("ABAC    D", dev:text()[1])
    recording:close()
    local bus = t.bus(vga)
    assert.equal(4, t.replay(path, bus).accesses)
    assert.equal("ABAC    D", bus.device:text()[1])
  end)
end)
