-- SPDX-License-Identifier: MIT
-- The MC146818 against its datasheet, by a clock that is advanced; the calendar under it.

local calendar = require "lunavisor.device.models.calendar"
local device = require "lunavisor.device"
local mc146818 = require "lunavisor.device.models.mc146818"
local random = require "spec.support.device"

local START = 1709164797 -- 2024-02-28 23:59:57, a Wednesday

local rtc, clock

local function rd(index)
  rtc:write(0, 1, index)
  return rtc:read(1, 1)
end

local function wr(index, value)
  rtc:write(0, 1, index)
  rtc:write(1, 1, value)
end

local function time_text()
  return ("%02x%02x-%02x-%02x %02x:%02x:%02x %d"):format(rd(0x32), rd(9), rd(8), rd(7), rd(4),
    rd(2), rd(0), rd(6))
end

local function fresh(options)
  clock = device.clock()
  options = options or {}
  options.clock, options.log, options.time = clock, false, options.time or START
  rtc = mc146818(options)
end

before_each(function() fresh() end)

describe("the calendar", function()
  it("agrees with the system's", function()
    for _, seconds in ipairs { 0, 951782399, 951782400, START, 4107542399, 4107542400 } do
      local date, own = os.date("!*t", seconds), calendar.date(seconds)
      for _, name in ipairs { "year", "month", "day" } do assert.equal(date[name], own[name]) end
      assert.same({ date.hour, date.min, date.sec, date.wday - 1 },
        { own.hour, own.minute, own.second, own.weekday })
      assert.equal(seconds, calendar.seconds(own))
    end
  end)
end)

describe("the clock", function()
  it("goes, over days and leap years", function()
    assert.equal("2024-02-28 23:59:57 4", time_text())
    clock:advance(3)
    assert.equal("2024-02-29 00:00:00 5", time_text())
    clock:advance(86400)
    assert.equal("2024-03-01 00:00:00 6", time_text())
  end)

  it("shows the time in binary and in twelve hours as register B says", function()
    wr(11, 0x06)
    assert.same({ 24, 2, 28, 23, 59, 57 }, { rd(9), rd(8), rd(7), rd(4), rd(2), rd(0) })
    wr(11, 0x04)
    assert.equal(0x8b, rd(4))
    wr(11, 0x00)
    assert.equal(0x91, rd(4))
    clock:advance(3)
    assert.equal(0x12, rd(4))
    clock:advance(13 * 3600)
    assert.equal(0x81, rd(4))
  end)

  it("stands while SET is 1, and goes on with what was written", function()
    wr(11, 0x82)
    clock:advance(10)
    assert.equal("2024-02-28 23:59:57 4", time_text())
    for index, value in pairs { [9] = 0x31, [8] = 0x12, [7] = 0x31, [4] = 0x23, [2] = 0x59,
      [0] = 0x58, [6] = 1 } do wr(index, value) end
    wr(11, 0x02)
    assert.equal("2031-12-31 23:59:58 1", time_text())
    clock:advance(2)
    assert.equal("2032-01-01 00:00:00 2", time_text())
  end)

  it("can be set while it goes", function()
    wr(4, 0x12)
    assert.equal("2024-02-28 12:59:57 4", time_text())
  end)

  it("says UIP from 244 us before an update to its end", function()
    assert.equal(0x26, rd(10))
    clock:advance(1 - 0.00224)
    assert.equal(0x26, rd(10))
    clock:advance(0.00002)
    assert.equal(0xa6, rd(10))
    clock:advance(0.00222)
    assert.equal(0x26, rd(10))
    wr(11, 0x82)
    clock:advance(0.999)
    assert.equal(0x26, rd(10))
  end)

  it("updates half a second after its divider is let go", function()
    clock:advance(0.3)
    wr(10, 0x76)
    clock:advance(5)
    assert.equal(0x57, rd(0))
    wr(10, 0x26)
    clock:advance(0.4999)
    assert.equal(0x57, rd(0))
    clock:advance(0.0002)
    assert.equal(0x58, rd(0))
  end)

  it("has power", function()
    assert.equal(0x80, rd(13))
    wr(13, 0)
    assert.equal(0x80, rd(13))
  end)
end)

describe("the clock's interrupts", function()
  it("come at each update", function()
    wr(11, 0x12)
    clock:advance(0.999)
    assert.is_false(rtc.lines.irq)
    clock:advance(0.001)
    assert.is_true(rtc.lines.irq)
    assert.equal(0xd0, rd(12)) -- periods too, which do not interrupt
    assert.is_false(rtc.lines.irq)
    assert.equal(0, rd(12))
    clock:advance(1)
    assert.is_true(rtc.lines.irq)
  end)

  for rate, hertz in pairs { [1] = 256, [2] = 128, [3] = 8192, [6] = 1024, [15] = 2 } do
    it(("come %d times a second at rate %d"):format(hertz, rate), function()
      wr(10, 0x20 + rate)
      wr(11, 0x42)
      local seen = 0
      rtc.irq:connect(function(up)
        if up then seen = seen + 1 end
      end)
      clock:advance(0.5 / hertz)
      for _ = 1, hertz do
        clock:advance(1 / hertz)
        rd(12)
      end
      assert.equal(hertz, seen)
    end)
  end

  it("are flags without their enables", function()
    wr(10, 0x26)
    rd(12)
    clock:advance(1.5)
    assert.is_false(rtc.lines.irq)
    assert.equal(0x50, rd(12))
  end)

  it("come at the alarm", function()
    wr(1, 0x00)
    wr(3, 0x01)
    wr(5, 0x00)
    wr(11, 0x22)
    clock:advance(62.9)
    assert.is_false(rtc.lines.irq)
    clock:advance(0.2)
    assert.is_true(rtc.lines.irq)
    assert.equal(0xf0, rd(12))
    clock:advance(86399)
    assert.is_false(rtc.lines.irq)
    clock:advance(1)
    assert.is_true(rtc.lines.irq)
  end)

  it("come at any hour and minute that an alarm does not care for", function()
    wr(1, 0x10)
    wr(3, 0xff)
    wr(5, 0xc0)
    wr(11, 0x22)
    local seen = 0
    rtc.irq:connect(function(up)
      if up then seen = seen + 1 end
    end)
    for _ = 1, 10 do
      clock:advance(60)
      rd(12)
    end
    assert.equal(10, seen)
  end)

  it("never come of an alarm that is no time", function()
    wr(1, 0x99)
    wr(11, 0x22)
    clock:advance(200000)
    assert.is_false(rtc.lines.irq)
  end)

  it("of updates end when SET rises", function()
    wr(11, 0x12)
    wr(11, 0x92)
    assert.equal(0x82, rd(11))
  end)
end)

describe("CMOS memory", function()
  it("has what it was made with and what was written, behind a reset too", function()
    fresh { ram = { [0x10] = 0x40 } }
    assert.equal(0x40, rd(0x10))
    wr(0x0f, 0x0a)
    wr(0x7f, 0x55)
    wr(11, 0x72)
    clock:advance(2)
    rtc:reset()
    assert.equal(0x0a, rd(0x0f))
    assert.equal(0x55, rtc:byte(0x7f))
    assert.equal(0x02, rd(11))
    assert.equal("2024-02-28 23:59:59 4", time_text())
    assert.is_false(rtc.lines.irq)
  end)

  it("does not see the NMI gate in its index", function()
    wr(0x90, 0x11)
    assert.is_true(rtc.lines.nmi_off)
    assert.equal(0x11, rd(0x10))
    assert.is_false(rtc.lines.nmi_off)
  end)

  it("refuses an index beyond it", function()
    local ok, message = pcall(rtc.byte, rtc, 128)
    assert.is_false(ok)
    assert.truthy(message:find("an index from 0 to 127 expected, got 128", 1, true))
  end)
end)

it("a clock's state goes on by another clock", function()
  wr(11, 0x12)
  clock:advance(10.25)
  local saved = rtc:save()
  local other = device.clock()
  other:advance(777)
  local copy = mc146818 { clock = other, log = false, time = 0 }
  assert(copy:load(saved))
  assert.is_true(copy.lines.irq)
  other:advance(0.75)
  copy:write(0, 1, 0)
  assert.equal(0x08, copy:read(1, 1))
end)

random.describe("mc146818", function(log) return mc146818 { log = log, time = START } end)
