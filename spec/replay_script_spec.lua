-- SPDX-License-Identifier: MIT
-- Recordings of what a script does to devices: it comes again in a replay.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local t = require "lunavisor.testing"
local contains, said = helper.contains, helper.said

local path
before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

local function recorded(kind, fn)
  local bus = t.bus(kind)
  local recording = assert(bus:record(path))
  fn(bus)
  recording:close()
end

describe("a recording", function()
  it("has what a script does to registers, FIFOs, lines, and not what the device does", function()
    local function made(step)
      return device "made" {
        registers = {
          R = { at = 0, fields = { low = "3:0", high = "7:4" } }, N = { at = 4 },
          LIST = { at = 8, width = 1, count = 4 }, WIDE = { at = 0x10, width = 8 },
          RX = { at = 0x18, width = 1, fifo = 4 },
          FOLLOW = { at = 0x1c, follows = "N", after = 1e-3 },
        },
        lines = { irq = { status = "R" }, out = true, other = true },
        timers = { tick = function(dev)
          dev.LIST[3] = dev.LIST[3] + step
          dev.out:pulse()
        end },
        reset = function(dev) dev:every(1e-3, "tick") end,
      }
    end
    local function drive(bus)
      local dev = bus.device
      dev.R.low = 5
      dev.R.value = 0x21
      dev.N, dev.LIST[2], dev.WIDE = 7, 9, luna.u64(0x12345678, 0x9abcdef0)
      for value = 1, 3 do dev.RX:push(value) end
      dev.RX:pop()
      dev.RX.trigger = 2
      dev.lines.out = true
      dev.out:set(false)
      dev.other:pulse()
      bus:pass(2.5e-3)
      for _, name in ipairs { "R", "N", "FOLLOW" } do bus:read32(name) end
      for at = 8, 11 do bus:read8(at) end
      bus:read64 "WIDE"
      bus:read8 "RX"
      dev.RX:clear()
      bus:read8 "RX"
      dev.R = 0
    end
    recorded(made(1), drive)
    local text = files.read(path)
    for _, line in ipairs { "s1 0 R - 5\nl1 irq 1", "s1 0 R - 21", "s1 0 LIST 2 9",
      "s1 0 RX push 3", "s1 0 WIDE - 123456789abcdef0", "s1 0 RX pop 0",
      "s1 0 RX trigger 2", "s1 0 out set 1\nl1 out 1", "s1 0 out set 0",
      "s1 0 other pulse 0\nl1 other 1\nl1 other 0", "s1 0 RX clear 0", "s1 0 R - 0\nl1 irq 0" } do
      contains("\n" .. line .. "\n", text)
    end
    assert.is_nil(text:find("\ns1 0 FOLLOW", 1, true))
    assert.is_nil(text:find("\ns1 0 LIST 3", 1, true))
    assert.equal(10, t.replay(path, t.bus(made(1))).accesses)
    contains("access 7: read of LIST[3] gave 0x4, was 0x2",
      said(t.replay, path, t.bus(made(2))))
  end)

  it("has what one device does to another, for a replay of the other alone", function()
    local other = device "other" { registers = { N = { at = 0 } } } { log = false }
    local driver = device "driver" { registers = {
      GO = { at = 0, write = function(_, value) other.N = value end } } } { log = false }
    local vm = helper.keep(assert(luna.vm { accel = "soft", clock = device.clock() }))
    vm:attach(driver, { mmio = 0xd0000000 })
    vm:attach(other, { mmio = 0xd0001000 })
    local recording = assert(vm:record(path))
    driver:write(0, 4, 9)
    other:read(0, 4)
    recording:close()
    contains("\ns2 1 N - 9\n", files.read(path))
    other.N = 0
    assert.is_false(rawget(other, "stored"))
    local class = device "other" { registers = { N = { at = 0 } } }
    assert.equal(2, t.replay(path, { other = t.bus(class) }).accesses)
    helper.clean()
  end)

  -- A device whose answers come of its declared fields.
  local function kept(factor)
    return device "kept" {
      registers = {
        SUM = { at = 0, access = "ro", read = function(dev)
          local sum = dev.base + (dev.more and 100 or 0)
          for _, one in ipairs(dev.list) do sum = sum + one end
          return sum * (factor or 1)
        end },
        ADD = { at = 4, access = "wo", write = function(dev, value)
          dev.base = dev.base + value
          dev.list[#dev.list + 1] = value
        end },
      },
      timers = { tick = function(dev)
        dev.base = dev.base + 1
        dev.list[1] = 7
      end },
      state = { base = 1, list = {}, more = false, title = "" },
    }
  end

  it("has what a script does to declared fields, and within them", function()
    local function drive(bus)
      local dev = bus.device
      bus:read32 "SUM"
      dev.base = 5
      dev.more = true
      dev.base = 6
      bus:read32 "SUM"
      bus:write32("ADD", 2)
      dev.list[2] = 30
      dev.list[3] = 40
      dev.title = 'a "name"\n'
      bus:read32 "SUM"
      dev:every(1e-3, "tick")
      bus:pass(2.5e-3)
      bus:read32 "SUM"
      dev.list = { 1 }
      bus:read32 "SUM"
      dev:cancel "tick"
      bus:pass(2e-3)
      bus:read32 "SUM"
      dev:reset()
      bus:read32 "SUM"
      return dev
    end
    local dev
    recorded(kept(), function(bus) dev = drive(bus) end)
    local text = files.read(path)
    for _, line in ipairs { "v1 0 base 5", "v1 0 more true", "v1 0 base 6",
      "v1 0 list {2,30,40}", 'v1 0 title "a \\034name\\034\\010"', "v1 0 list {1}",
      "m1 0 every {0.001,\"tick\",n=2} nil" } do
      contains("\n" .. line .. "\n", text)
    end
    local _, lines = text:gsub("\nv1", "")
    assert.equal(6, lines) -- and nothing of what the device does itself
    assert.equal(8, t.replay(path, t.bus(kept())).accesses)
    contains("access 1: read of SUM gave 0x2, was 0x1", said(t.replay, path, t.bus(kept(2))))
    -- the device is as before
    dev.base = 9
    assert.equal(9, rawget(dev, "base"))
    assert.equal(dev.class.layout.meta, getmetatable(dev))
  end)

  it("has a state that a script loads, and sequences that it begins", function()
    local function made(step)
      return device "loads" {
        registers = { A = { at = 0 }, B = { at = 4, access = "ro",
          read = function(dev) return dev.count * step end },
          SEQ = { at = 8, sequence = { "C", rest = "D" } },
          C = { at = false }, D = { at = false } },
        state = { count = 2 },
      }
    end
    recorded(made(1), function(bus)
      local dev = bus.device
      dev.A, dev.count = 3, 4
      local state = dev:save()
      dev.A, dev.count = 0, 0
      bus:read32 "B"
      assert(dev:load(state))
      bus:read32 "A"
      bus:read32 "B"
      dev:start "SEQ"
      bus:write32("SEQ", 7)
      bus:write32("SEQ", 8)
      assert.same({ 7, 8 }, { dev.C, dev.D })
      local ok = dev:load { registers = {} }
      assert.is_nil(ok)
      bus:read32 "SEQ"
    end)
    assert.equal(6, t.replay(path, t.bus(made(1))).accesses)
    contains("access 3: read of B gave 0x8, was 0x4", said(t.replay, path, t.bus(made(2))))
  end)

  it("says which of a script's doings a device did more of", function()
    local function made(ruled)
      return device "more" { registers = { A = { at = 0 } }, state = { n = 0 },
        lines = { irq = function(dev) return ruled and dev.A == 1 end } }
    end
    recorded(made(false), function(bus)
      bus.device.A = 1
      bus.device.n = 5
      bus:read32 "A"
    end)
    contains("after access 0, when a script set A: more: line irq goes up, and did not",
      said(t.replay, path, t.bus(made(true))))
  end)

  it("refuses fields that it cannot hold, in the replay", function()
    recorded(kept(), function(bus)
      bus.device.title = print
      bus:read32 "SUM"
    end)
    contains("\nv1 0 title ?\n", files.read(path))
    contains("field title was set to what a recording cannot hold",
      said(t.replay, path, t.bus(kept())))
  end)

  it("has fields that one device sets of another, once", function()
    local own = { registers = { N = { at = 0, access = "ro",
      read = function(dev) return dev.n + dev.list[1] end } }, state = { n = 0, list = { 0 } } }
    local one = device "one"(own) { log = false }
    local driver = device "driver" { registers = { GO = { at = 0, write = function(_, value)
      one.n = value
      one.list[1] = one.list[1] + 1
    end } } } { log = false }
    local vm = helper.keep(assert(luna.vm { accel = "soft", clock = device.clock() }))
    vm:attach(driver, { mmio = 0xd0000000 })
    vm:attach(one, { mmio = 0xd0001000 })
    local recording = assert(vm:record(path))
    driver:write(0, 4, 9)
    assert.equal(10, one:read(0, 4))
    recording:close()
    contains("\nv2 1 n 9\n", files.read(path))
    assert.equal(2, t.replay(path, { one = t.bus(device "one"(own)) }).accesses)
    helper.clean()
  end)
end)

helper.kvm("a recording of a guest", function()
  it("has what a guest writes to memory that a device exposes", function()
    local kind = device "pages" {
      regions = {
        io = { registers = { SUM = { at = 0, access = "ro",
          read = function(dev) return dev.page:u8(1) + 256 * dev.page:u8(4095) end } } },
        window = { size = 4096, read = function(dev, at) return dev.page:u8(at) end,
          write = function(dev, at, size, value)
            dev.page["u" .. 8 * size](dev.page, at, value)
          end },
      },
      buffers = { page = 4096 },
      init = function(dev) dev:expose("window", { buffer = dev.page }) end,
    }
    local g = helper.guest { mode = "long", size = "64K", source = [[
      mov rsi, 0xd0000000
      mov byte [rsi + 1], 5
      hlt
      mov byte [rsi + 1], 6
      mov byte [rsi + 4095], 1
      mov eax, [rsi + 0x100000]
      hlt
      mov byte [rsi + 1], 7
      hlt ]] }
    local dev = g.vm:attach(kind { log = false },
      { mmio = { window = 0xd0000000, io = 0xd0100000 } })
    g:stops "hlt"
    local before = g.cpu.exits
    local recording = assert(g.vm:record(path))
    g:stops "hlt"
    assert.equal(0x106, luna.u64.tonumber(g.cpu.rax))
    assert.equal(4, g.cpu.exits - before)
    recording:close()
    g:stops "hlt"
    assert.same({ 7, 5 }, { dev.page:u8(1), g.cpu.exits - before })
    assert.equal(3, t.replay(path, t.bus(kind)).accesses)
  end)
end)
