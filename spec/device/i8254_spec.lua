-- SPDX-License-Identifier: MIT
-- The 8254 against its datasheet: modes, gates, latches and read-back, by a clock that is advanced.

local device = require "lunavisor.device"
local i8254 = require "lunavisor.device.models.i8254"
local random = require "spec.support.device"

local HERTZ = 1193182

local pit, clock, edges

local function wr(at, ...)
  for _, value in ipairs { ... } do pit:write(at, 1, value) end
end

local function rd(at) return pit:read(at, 1) end
local function both(at) return rd(at) + 256 * rd(at) end

-- Whole ticks since the start; accesses are in the middle of one.
local function now() return math.floor(clock.now * HERTZ + 0.01) end
local function pass(ticks) clock:advance(ticks / HERTZ) end

-- What OUT of a counter did, with the ticks: "up 5 down 9".
local function told()
  local text = table.concat(edges, " ")
  edges = {}
  return text
end

local function fresh()
  clock = device.clock()
  pit = i8254 { clock = clock, log = false }
  edges = {}
  pit.inputs.gate2:set(true)
  pit.out2:connect(function(up) edges[#edges + 1] = (up and "up " or "down ") .. now() end)
  clock:advance(0.5 / HERTZ)
end

before_each(fresh)

describe("the 8254 in mode", function()
  it("0 interrupts N + 1 ticks after the count, once", function()
    wr(3, 0xb0)
    assert.is_false(pit:out(2))
    wr(2, 4, 0)
    pass(20)
    assert.equal("up 5", told())
    assert.equal(65536 - 15, both(2))
  end)

  it("0 stops with the first byte of a count and while the gate is down", function()
    wr(3, 0xb0)
    wr(2, 4, 0)
    pass(3)
    pit.inputs.gate2:set(false)
    pass(10)
    assert.equal(2, both(2))
    pit.inputs.gate2:set(true)
    pass(1)
    assert.equal("", told())
    pass(1)
    assert.equal("up 15", told())
    wr(2, 9)
    assert.equal("down 15", told())
    pass(100)
    wr(2, 0)
    pass(20)
    assert.equal("up 125", told())
  end)

  it("1 is low for N ticks after each trigger", function()
    wr(3, 0xb2)
    assert.is_true(pit:out(2))
    wr(2, 3, 0)
    pass(10)
    told()
    pit.inputs.gate2:set(false)
    pit.inputs.gate2:set(true)
    pass(2)
    pit.inputs.gate2:set(false)
    pit.inputs.gate2:set(true)
    pass(10)
    assert.equal("down 11 up 16", told())
  end)

  it("2 is low for the last tick of each N", function()
    wr(3, 0xb4)
    wr(2, 4, 0)
    told()
    pass(10)
    assert.equal("down 4 up 5 down 8 up 9", told())
    assert.equal(3, both(2))
  end)

  it("2 takes a new count at the end of the cycle", function()
    wr(3, 0xb4)
    wr(2, 4, 0)
    pass(2)
    told()
    wr(2, 3, 0)
    pass(8)
    assert.equal("down 4 up 5 down 7 up 8 down 10", told())
  end)

  it("2 and 3 begin anew when the gate rises, and are up while it is down", function()
    for _, control in ipairs { 0xb4, 0xb6 } do
      fresh()
      wr(3, control)
      wr(2, 4, 0)
      pass(4)
      pit.inputs.gate2:set(false)
      assert.is_true(pit:out(2))
      pass(100)
      told()
      pit.inputs.gate2:set(true)
      pass(4)
      assert.equal(control == 0xb4 and "down 108" or "down 107", told())
    end
  end)

  it("3 is a square wave, of an odd count one tick longer up", function()
    wr(3, 0xb6)
    wr(2, 4, 0)
    told()
    pass(8)
    assert.equal("down 3 up 5 down 7", told())
    fresh()
    wr(3, 0xbe) -- the third bit does not matter
    wr(2, 5, 0)
    told()
    pass(11)
    assert.equal("down 4 up 6 down 9 up 11", told())
  end)

  it("3 counts by two", function()
    wr(3, 0xb6)
    wr(2, 6, 0)
    pass(1)
    local seen = {}
    for i = 1, 7 do
      seen[i] = both(2)
      pass(1)
    end
    assert.same({ 6, 4, 2, 6, 4, 2, 6 }, seen)
  end)

  it("3 takes a new count at the end of the half", function()
    wr(3, 0xb6)
    wr(2, 10, 0)
    pass(2)
    told()
    wr(2, 4, 0)
    pass(12)
    assert.equal("down 6 up 8 down 10 up 12 down 14", told())
  end)

  it("4 strobes for one tick after N, once", function()
    wr(3, 0xb8)
    wr(2, 3, 0)
    told()
    pass(20)
    assert.equal("down 4 up 5", told())
  end)

  it("5 strobes N ticks after a trigger", function()
    wr(3, 0xba)
    wr(2, 3, 0)
    pass(10)
    told()
    pit.inputs.gate2:set(false)
    pit.inputs.gate2:set(true)
    pass(20)
    assert.equal("down 14 up 15", told())
  end)
end)

describe("the 8254's counters", function()
  it("count 65536 for 0", function()
    wr(3, 0x34)
    wr(0, 0, 0)
    pass(1)
    assert.equal(0, both(0))
    pass(1)
    assert.equal(65535, both(0))
    pass(65535)
    assert.equal(0, both(0))
  end)

  it("are latched once until they are read", function()
    wr(3, 0xb0)
    wr(2, 0x34, 0x12)
    pass(5)
    wr(3, 0x80)
    pass(5)
    wr(3, 0x80)
    assert.equal(0x1230, both(2))
    assert.equal(0x122b, both(2))
  end)

  it("keep a latch between its two bytes", function()
    wr(3, 0xb0)
    wr(2, 0x00, 0x12)
    pass(1)
    wr(3, 0x80)
    assert.equal(0x00, rd(2))
    pass(1)
    assert.equal(0x12, rd(2))
  end)

  it("can be of one byte", function()
    wr(3, 0x90)
    wr(2, 0x34)
    pass(1)
    assert.equal(0x34, rd(2))
    assert.equal(0x34, rd(2))
    wr(3, 0xa0)
    wr(2, 0x34)
    pass(1)
    assert.equal(0x34, rd(2))
    pass(1)
    assert.equal(0x33, rd(2))
  end)

  it("can be decimal", function()
    wr(3, 0xb1)
    wr(2, 0x00, 0x10)
    pass(2)
    assert.equal(0x0999, both(2))
    wr(3, 0xb1)
    wr(2, 0, 0)
    pass(2)
    assert.equal(0x9999, both(2))
  end)

  it("start a byte sequence anew with the control word", function()
    wr(3, 0xb0)
    wr(2, 1)
    wr(3, 0xb0)
    wr(2, 4, 0)
    pass(1)
    assert.equal(4, both(2))
  end)
end)

describe("the 8254's read-back command", function()
  it("gives status before count", function()
    wr(3, 0xb6)
    wr(2, 8, 0)
    pass(1)
    wr(3, 0xc8)
    pass(3)
    assert.equal(0xb6, rd(2))
    assert.equal(8, both(2))
    assert.equal(2, both(2))
  end)

  it("says whether a count has been taken", function()
    wr(3, 0xb4)
    wr(3, 0xe8)
    assert.equal(0xf4, rd(2))
    wr(2, 4, 0)
    wr(3, 0xe8)
    assert.equal(0xf4, rd(2))
    pass(1)
    wr(3, 0xe8)
    assert.equal(0xb4, rd(2))
    wr(2, 9, 0)
    wr(3, 0xe8)
    assert.equal(0xf4, rd(2))
    pass(4)
    wr(3, 0xe8)
    assert.equal(0xb4, rd(2))
  end)

  it("latches several counters", function()
    wr(3, 0x30, 0xb0)
    wr(0, 7, 0)
    wr(2, 9, 0)
    pass(1)
    wr(3, 0xda)
    pass(3)
    assert.equal(7, both(0))
    assert.equal(9, both(2))
  end)
end)

it("an 8254's state goes on by another clock", function()
  wr(3, 0xb6)
  wr(2, 100, 0)
  pass(31)
  local saved = pit:save()
  local other = device.clock()
  other:advance(5000)
  local copy = i8254 { clock = other, log = false }
  assert(copy:load(saved))
  assert.equal(both(2), copy:read(2, 1) + 256 * copy:read(2, 1))
  pass(25)
  other:advance(25 / HERTZ)
  assert.is_false(copy:out(2))
  assert.equal(both(2), copy:read(2, 1) + 256 * copy:read(2, 1))
end)

random.describe("i8254", function(log)
  local dev = i8254 { log = log }
  dev.out0:connect(function() end)
  return dev
end, function(dev, next) dev.inputs["gate" .. next(3)]:set(next(2)) end)
