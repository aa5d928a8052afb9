-- SPDX-License-Identifier: MIT
-- Recordings of what a script does to devices: it comes again in a replay.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local t = require "lunavisor.testing"
local contains = helper.contains

local path
before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

local function said(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  return type(message) == "table" and tostring(message.message) or tostring(message)
end

local function text_of(name)
  local file = assert(io.open(name, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

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
    local text = text_of(path)
    for _, line in ipairs { "s1 0 R - 5\nl1 irq 1", "s1 0 R - 21", "s1 0 LIST 2 9",
      "s1 0 RX push 3", "s1 0 WIDE - 123456789abcdef0", "s1 0 RX pop 0",
      "s1 0 out set 1\nl1 out 1", "s1 0 out set 0",
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
    contains("\ns2 1 N - 9\n", text_of(path))
    other.N = 0
    assert.is_false(rawget(other, "stored"))
    local class = device "other" { registers = { N = { at = 0 } } }
    assert.equal(2, t.replay(path, { other = t.bus(class) }).accesses)
    helper.clean()
  end)
end)
