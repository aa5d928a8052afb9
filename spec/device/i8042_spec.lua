-- SPDX-License-Identifier: MIT
-- The keyboard and mouse controller against IBM's PS/2 Hardware Interface Technical Reference.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local i8042 = require "lunavisor.device.models.i8042"
local random = require "spec.support.device"
local raises = helper.raises

local kbc, clock

local function status() return kbc.regions.control.read(nil, 0, 1) end
local function command(byte) kbc.regions.control.write(nil, 0, 1, byte) end
local function write(byte) kbc.regions.data.write(nil, 0, 1, byte) end
local function read() return kbc.regions.data.read(nil, 0, 1) end

-- All bytes that are there, those of the mouse marked.
local function take()
  local list = {}
  while status() % 2 == 1 do
    local mouse = math.floor(status() / 32) % 2 == 1
    list[#list + 1] = ("%s%02x"):format(mouse and "m" or "", read())
  end
  return table.concat(list, " ")
end

local function ask(byte, argument)
  command(byte)
  if argument then write(argument) end
  return take()
end

local function to_keyboard(...)
  for _, byte in ipairs { ... } do write(byte) end
  return take()
end

local function to_mouse(...)
  local list = {}
  for _, byte in ipairs { ... } do list[#list + 1] = ask(0xd4, byte) end
  return table.concat(list, " ")
end

local function fresh(options)
  options = options or {}
  clock = device.clock()
  options.clock, options.log = clock, false
  kbc = i8042(options)
end

before_each(function() fresh() end)

describe("the controller", function()
  it("passes its tests and leaves keyboard and mouse off", function()
    assert.equal("55", ask(0xaa))
    assert.equal(4, status() % 8)
    assert.equal("00", ask(0xab))
    assert.equal("00", ask(0xa9))
    assert.equal("77", ask(0x20))
  end)

  it("keeps its command byte and memory", function()
    assert.equal("47", ask(0x20))
    assert.equal("", ask(0x60, 0x03))
    assert.equal("03", ask(0x20))
    assert.equal(0, status() % 8)
    ask(0x7f, 0xaa)
    assert.equal("aa", ask(0x3f))
    assert.equal("00", ask(0x3e))
  end)

  it("says whether a command or data came last", function()
    command(0xae)
    assert.equal(8, status() - status() % 8 - 0x10)
    write(0xee)
    assert.equal(0x10, status() - status() % 8)
  end)

  it("turns keyboard and mouse off and on by commands and what is written to them", function()
    command(0xad)
    command(0xa7)
    assert.equal("77", ask(0x20))
    assert.is_true(kbc:press "a")
    kbc:move { dx = 1 }
    assert.equal("", take())
    command(0xae)
    assert.equal("1e", take())
    command(0xad)
    assert.equal("ee", to_keyboard(0xee))
    assert.equal("67", ask(0x20))
    assert.equal("mfa", to_mouse(0xf5))
    assert.equal("47", ask(0x20))
  end)

  it("has A20 and reset in its output port", function()
    local resets = 0
    kbc.reset_out:connect(function(up) if up then resets = resets + 1 end end)
    assert.is_true(kbc.lines.a20)
    ask(0xd1, 0xdd)
    assert.is_false(kbc.lines.a20)
    assert.equal("cd", ask(0xd0))
    command(0xdf)
    assert.is_true(kbc.lines.a20)
    assert.equal("cf", ask(0xd0))
    command(0xdd)
    assert.is_false(kbc.lines.a20)
    assert.equal(0, resets)
    command(0xfe)
    assert.equal(1, resets)
    command(0xff)
    ask(0xd1, 0xde)
    assert.equal(2, resets)
  end)

  it("shows interrupts in its output port", function()
    command(0xd3)
    write(0x12)
    command(0xd0)
    assert.equal("m12 ef", take())
    kbc:press "a"
    command(0xd0)
    assert.equal("1e df", take())
  end)

  it("gives bytes as if they came from keyboard and mouse", function()
    assert.equal("1e", ask(0xd2, 0x1e))
    assert.equal("m55", ask(0xd3, 0x55))
    assert.equal("80", ask(0xc0))
  end)
end)

describe("the interrupts", function()
  it("come with each byte, of keyboard and mouse apart", function()
    kbc:press "a"
    assert.is_true(kbc.lines.irq1)
    assert.is_false(kbc.lines.irq12)
    kbc:release "a"
    assert.equal(1, kbc.irq1.edges)
    assert.equal(0x1e, read())
    assert.is_true(kbc.lines.irq1)
    assert.equal(3, kbc.irq1.edges)
    assert.equal(0x9e, read())
    assert.is_false(kbc.lines.irq1)
    command(0xd4)
    write(0xf4)
    assert.is_true(kbc.lines.irq12)
    assert.is_false(kbc.lines.irq1)
    assert.equal(0xfa, read())
    assert.is_false(kbc.lines.irq12)
  end)

  it("stay away where the command byte says so", function()
    ask(0x60, 0x44)
    kbc:press "a"
    assert.is_false(kbc.lines.irq1)
    command(0x60)
    write(0x45)
    assert.is_true(kbc.lines.irq1)
  end)
end)

describe("the keyboard", function()
  it("answers its commands", function()
    ask(0x60, 0x07)
    for _, case in ipairs { { "fa ab 83", 0xf2 }, { "ee", 0xee }, { "fa fa", 0xed, 7 },
      { "fa fa", 0xf3, 0x20 }, { "fa fa 02", 0xf0, 0 }, { "fa fe", 0xf0, 3 }, { "fe", 0x10 },
      { "fa aa", 0xff }, { "fa", 0xf6 }, { "fa", 0xfa } } do
      assert.equal(case[1], to_keyboard(case[2], case[3]), ("command %x"):format(case[2]))
    end
    assert.equal("fa", to_keyboard(0xfe))
    assert.equal(0, kbc.keyboard.leds)
  end)

  it("sends nothing while it is disabled", function()
    assert.equal("fa", to_keyboard(0xf5))
    assert.is_false(kbc:press "a")
    assert.equal("fa", to_keyboard(0xf4))
    assert.is_true(kbc:press "a")
    assert.equal("1e", take())
  end)

  it("speaks set 2, set 1, and set 2 translated to set 1", function()
    local function keys()
      for _, name in ipairs { "a", "f7", "up", "print" } do
        kbc:press(name)
        kbc:release(name)
      end
      return take()
    end
    assert.equal("1e 9e 41 c1 e0 48 e0 c8 e0 37 e0 b7", keys())
    ask(0x60, 0x07)
    assert.equal("1c f0 1c 83 f0 83 e0 75 e0 f0 75 e0 7c e0 f0 7c", keys())
    assert.equal("fa fa", to_keyboard(0xf0, 1))
    assert.equal("1e 9e 41 c1 e0 48 e0 c8 e0 37 e0 b7", keys())
  end)

  it("has its identification translated too", function()
    assert.equal("fa ab 41", to_keyboard(0xf2))
  end)

  it("says when its buffer overruns", function()
    ask(0x60, 0x07)
    for _ = 1, 17 do kbc:press "a" end
    assert.is_false(kbc:press "b")
    assert.equal(("1c "):rep(17) .. "00", take())
  end)

  it("types texts, as fast as a typist, and waits for who reads", function()
    kbc:type "dir\n"
    assert.equal("20 a0", take())
    clock:advance(0.02)
    assert.equal("17 97", take())
    clock:advance(0.02)
    clock:advance(0.02)
    clock:advance(0.02)
    assert.equal("13 93 1c 9c", take())
    fresh { pace = 0 }
    kbc:type "A:\\"
    assert.equal("2a 1e 9e aa 2a 27 a7 aa 2b ab", take())
  end)

  it("makes all printable characters, each by strokes of its own", function()
    fresh { pace = 0 }
    local seen = {}
    for byte = 32, 126 do
      kbc:type(string.char(byte))
      local strokes = take()
      assert.truthy(#strokes >= 5, string.char(byte))
      assert.is_nil(seen[strokes], string.char(byte))
      seen[strokes] = true
    end
  end)

  it("has no other keys and characters", function()
    raises("i8042:press: there is no key entr; did you mean 'enter'?",
      function() kbc:press "entr" end)
    raises("i8042:type: no key of a US keyboard makes", function() kbc:type "\200" end)
    raises("i8042:type: a string expected, got number", function() kbc:type(5) end)
  end)
end)

describe("the mouse", function()
  it("answers its commands", function()
    assert.equal("mfa maa m00", to_mouse(0xff))
    assert.equal("mfa m00", to_mouse(0xf2))
    assert.equal("mfa m00 m02 m64", to_mouse(0xe9))
    assert.equal("mfa mfa mfa mfa mfa", to_mouse(0xe8, 3, 0xf3, 40, 0xe7))
    assert.equal("mfa", to_mouse(0xf4))
    kbc:move { left = true, middle = false }
    assert.equal("m09 m00 m00", take())
    assert.equal("mfa m34 m03 m28", to_mouse(0xe9))
    assert.equal("mfe", to_mouse(0x01))
    assert.equal("mfa", to_mouse(0xf6))
    assert.equal("mfa m04 m02 m64", to_mouse(0xe9))
  end)

  it("echoes in wrap mode", function()
    assert.equal("mfa m12 mf4 mfa mfe", to_mouse(0xee, 0x12, 0xf4, 0xec, 0x12))
  end)

  it("reports movement and buttons, to the right and up", function()
    to_mouse(0xf4)
    kbc:move { dx = 5, dy = 3 }
    assert.equal("m28 m05 mfd", take())
    kbc:move { dx = -1, dy = -2, right = true }
    assert.equal("m1a mff m02", take())
    kbc:move { right = false, middle = true }
    assert.equal("m0c m00 m00", take())
  end)

  it("keeps what a packet has no room for, and what comes before it is taken", function()
    to_mouse(0xf4)
    kbc:move { dx = 300 }
    assert.equal("m08 mff m00 m08 m2d m00", take())
    kbc:move { dx = 1 }
    kbc:move { dx = 2, left = true }
    kbc:move { dx = 3 }
    assert.equal("m08 m01 m00 m09 m05 m00", take())
  end)

  it("reports when it is asked alone in remote mode", function()
    to_mouse(0xf4, 0xf0)
    kbc:move { dx = 4 }
    assert.equal("", take())
    assert.equal("mfa m08 m04 m00", to_mouse(0xeb))
  end)

  it("has a wheel for who knows the way to it", function()
    to_mouse(0xf3, 200, 0xf3, 100, 0xf3, 80)
    assert.equal("mfa m03", to_mouse(0xf2))
    to_mouse(0xf4)
    kbc:move { dz = -1 }
    assert.equal("m08 m00 m00 mff", take())
  end)

  it("takes no movement that it does not know", function()
    raises("i8042:move: unknown key 'dw'; did you mean 'dx'?", function() kbc:move { dw = 1 } end)
    raises("i8042:move: left: a boolean expected, got number", function() kbc:move { left = 1 } end)
  end)
end)

it("keeps what is under way in its state", function()
  kbc:press "a"
  kbc:type "b"
  to_mouse(0xf4)
  kbc:press "c"
  kbc:move { dx = 7 }
  local saved = kbc:save()
  local before = take()
  fresh()
  assert(kbc:load(saved))
  assert.is_true(kbc.lines.irq1)
  assert.equal(before, take())
end)

random.describe("i8042", function(log) return i8042 { log = log } end, function(dev, next)
  if next(2) == 0 then dev:press "a" else dev:move { dx = next(600) - 300, dz = next(3) - 1 } end
end)
