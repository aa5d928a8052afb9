-- SPDX-License-Identifier: MIT
-- What a device keeps: time, reset, save and load by name, the dump, DMA, and the description that
-- other programs walk. No VM is needed.

local device = require "lunavisor.device"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, refused = helper.raises, helper.refused

local function timer_table(more)
  local spec = {
    registers = {
      COUNT = { at = 0, reset = 5, fields = { low = "7:0", high = "15:8" } },
      WIDE = { at = 8, width = 8 },
      TABLE = { at = 16, count = 3 },
      DATA = { at = 32, fifo = 4, trigger = 2 },
      CTRL = { at = 40, fields = { on = 0, ready = { 1, follows = "on", after = 1 } } },
    },
    timers = { tick = function(dev) dev.COUNT.low = dev.COUNT.low + 1 end },
    lines = { irq = { status = "COUNT", mask = 0xff00 }, out = true },
    state = { list = { 1 } }, holds = "file",
  }
  for key, value in pairs(more or {}) do spec[key] = value end
  return spec
end

local function timer(more, options)
  return device "timer"(timer_table(more))(options or { log = false })
end

describe("time", function()
  it("passes when a script says so, each timer at its moment", function()
    local moments = {}
    local dev = timer { timers = { tick = function(d) moments[#moments + 1] = d.now end } }
    dev:after(2, "tick")
    dev.clock:advance(1.5)
    assert.same({}, moments)
    dev.clock:advance(1)
    assert.same({ 2 }, moments)
    assert.equal(2.5, dev.now)
    dev:every(0.25, "tick")
    dev.clock:advance(0.6)
    assert.same({ 2, 2.75, 3 }, moments)
    assert.is_true(math.abs(dev:left "tick" - 0.15) < 1e-8)
    assert.is_true(dev:cancel "tick")
    assert.is_false(dev:cancel "tick")
    dev.clock:advance(10)
    assert.equal(3, #moments)
  end)

  it("is one for devices that share a clock, in the order of moments", function()
    local clock, order = device.clock(), {}
    local function kind(name)
      return device(name) { registers = {},
        timers = { t = function(d) order[#order + 1] = d.name end } } { clock = clock }
    end
    local a, b = kind "a", kind "b"
    a:after(2, "t")
    b:after(1, "t")
    clock:advance(3)
    assert.same({ "b", "a" }, order)
  end)

  it("lets a timer arm itself, and others, again", function()
    local count = 0
    local dev = timer { timers = { tick = function(d)
      count = count + 1
      if count < 3 then d:after(1, "tick") end
    end } }
    dev:after(1, "tick")
    dev.clock:advance(10)
    assert.equal(3, count)
    assert.is_nil(dev:left "tick")
  end)

  it("refuses what is no time and no timer", function()
    local dev = timer()
    raises("dev:after: device timer has no timer tikc; did you mean 'tick'?",
      function() dev:after(1, "tikc") end)
    raises("dev:after: a time in seconds expected, got -1", function() dev:after(-1, "tick") end)
    raises("dev:every: a period of at least 1 ns", function() dev:every(0, "tick") end)
    raises("clock:advance: a time in seconds expected", function() dev.clock:advance "1" end)
  end)

  it("has no names but its own", function()
    local dev = timer()
    raises("a clock has no field 'nwo'; did you mean 'now'?", function() return dev.clock.nwo end)
    raises("a clock has no field 'now' that can be set", function() dev.clock.now = 1 end)
    raises("a fifo has no field 'cuont'; did you mean 'count'?",
      function() return dev.DATA.cuont end)
  end)

  it("comes from any source", function()
    local source = { moment = 0 }
    function source:time() return self.moment end
    function source:arm(moment) self.armed = moment end
    local clock = device.clock(source)
    local dev = timer(nil, { clock = clock })
    dev:after(1e-6, "tick")
    assert.equal(1000, source.armed)
    source.moment = 1000
    clock:fire()
    assert.equal(6, dev.COUNT.low)
    assert.is_nil(source.armed)
    raises("this clock goes by itself", function() clock:advance(1) end)
  end)

  it("asks its source for the next of several that come again and again", function()
    local source = { moment = 0 }
    function source:time() return self.moment end
    function source:arm(moment) self.armed = moment end
    local clock, calls = device.clock(source), 0
    for i = 1, 3 do
      source.moment = i
      clock:every(1e-6, function() calls = calls + 1 end)
    end
    for _ = 1, 30 do
      source.moment = source.armed
      clock:fire()
    end
    assert.equal(30, calls)
  end)
end)

describe("reset", function()
  it("is what the table says, and its function what is to be done besides", function()
    local kinds = {}
    local dev = timer { reset = function(d, kind)
      kinds[#kinds + 1] = kind or "power"
      d.TABLE[1] = 9
    end }
    dev.COUNT, dev.TABLE[0] = 0xff00, 4
    dev.DATA:push(1)
    dev.list[1] = 8
    dev:after(1, "tick")
    assert.is_true(dev.lines.irq)
    dev:reset "soft"
    assert.same({ "power", "soft" }, kinds)
    assert.equal(5, dev.COUNT.value)
    assert.equal(0, dev.TABLE[0])
    assert.equal(9, dev.TABLE[1])
    assert.is_true(dev.DATA.empty)
    assert.same({ 1 }, dev.list)
    assert.is_nil(dev:left "tick")
    assert.is_false(dev.lines.irq)
  end)
end)

it("leaves alone at a reset what is behind a battery", function()
  local dev = device "kept" {
    registers = { RAM = { at = 0, count = 2 }, A = { at = 8 }, F = { at = 12, fifo = 4 } },
    state = { b = 1, c = 1 }, timers = { t = print, u = print }, keeps = "RAM F b t",
  } { log = false }
  dev.RAM[1], dev.A, dev.b, dev.c = 5, 6, 7, 8
  dev.F:push(9)
  dev:after(1, "t")
  dev:after(1, "u")
  dev:reset()
  assert.same({ 5, 0, 7, 1, 9 }, { dev.RAM[1], dev.A, dev.b, dev.c, dev.F:peek() })
  assert.same({ 1, nil }, { dev:left "t", dev:left "u" })
end)

describe("a state", function()
  local function busy()
    local dev = timer()
    dev.COUNT, dev.TABLE[2], dev.WIDE = 0x305, 7, luna.u64 "0xfedcba9876543210"
    dev.DATA:push(1)
    dev.DATA:push(2)
    dev.lines.out, dev.list = true, { 4, 5 }
    dev:every(1, "tick")
    dev.CTRL.on = 1
    dev.clock:advance(0.75)
    return dev
  end

  it("has all of the device and brings it to another", function()
    local saved, dev = busy():save(), timer()
    assert.same({ true }, { dev:load(saved) })
    assert.same(saved, dev:save())
    assert.is_true(dev.lines.irq and dev.lines.out)
    dev.clock:advance(0.25)
    assert.equal(6, dev.COUNT.low)
    assert.equal(1, dev.CTRL.ready)
    dev.clock:advance(1)
    assert.equal(7, dev.COUNT.low)
    assert.same({ 4, 5 }, dev.list)
    assert.equal(1, dev:read(32, 4))
  end)

  it("is plain, and says what it is without", function()
    local saved = busy():save()
    assert.equal("0xfedcba9876543210", saved.registers.WIDE)
    assert.same({ "file" }, saved.without)
    assert.same("timer", saved.device)
    assert.equal(1, saved.version)
  end)

  it("of other names is refused by name, and changes nothing", function()
    local dev, saved = timer(), busy():save()
    local before = dev:save()
    saved.registers.COUTN, saved.registers.COUNT = saved.registers.COUNT, nil
    saved.registers.WIDE = "wide"
    refused("state", "the device has no register COUTN; did you mean 'COUNT'?; the state has no "
      .. "register COUNT; register WIDE cannot be what the state has for it", dev:load(saved))
    assert.same(before, dev:save())
    local ok, list = dev:load(saved, { partial = true })
    assert.is_true(ok)
    assert.equal(3, #list)
    assert.equal(7, dev.TABLE[2])
    assert.equal(5, dev.COUNT.value)
  end)

  it("of another device or version is refused, unless it is upgraded", function()
    local saved = busy():save()
    refused("state", "this is a state of device timer", device "other" { registers = {} } ():load(
      saved))
    refused("state", "the state is of version 1 and the device of version 2",
      timer { version = 2 }:load(saved))
    local dev = timer { version = 2, upgrade = function(state, version)
      assert.equal(1, version)
      state.registers.COUNT = 1
      return state
    end }
    assert.is_true(dev:load(saved))
    assert.equal(1, dev.COUNT.value)
    raises("dev:load: a state, as dev:save gives it, expected, got nil", function() dev:load() end)
    raises("dev:load: unknown option 'part'", function() dev:load(saved, { part = true }) end)
  end)
end)

describe("a dump", function()
  it("shows registers, fields, lines and timers, marks changes, and has no effect", function()
    local dev = device "d" { registers = {
      A = { at = 0, access = "rc", fields = { mode = { "1:0", enum = { fast = 2 } } } },
      P = { at = 4, precious = true }, F = { at = 8, fifo = 2 }, T = { at = 12, todo = "4.2" },
    }, lines = { irq = { status = "A" } }, timers = { t = print } } { log = false }
    dev.A.mode = "fast"
    dev.F:push(3)
    dev:after(1.5, "t")
    assert.equal("d\n* 0000 A          00000002  mode=fast\n  0004 P          (precious)\n"
      .. "  0008 F          1 of 2\n  000c T          00000000  todo\n  line irq: up\n"
      .. "  timer t: in 1.500000 s", tostring(dev))
    assert.equal(2, dev.A.value)
    assert.equal(1, dev.F.count)
    assert.truthy(tostring(dev):find("\n  0000 A", 1, true))
  end)
end)

describe("dma", function()
  local memory, dma

  before_each(function()
    memory = device.memory(0x100, 0x1000)
    dma = timer(nil, { log = false, dma = memory }).dma
  end)

  it("reads and writes bytes and numbers of both orders", function()
    assert.is_true(dma:write(0x1000, "abcd"))
    assert.equal("bc", dma:read(0x1001, 2))
    assert.is_true(dma:u32(0x1010, 0x11223344))
    assert.equal(0x44, dma:u8(0x1010))
    assert.equal(0x3344, dma:u16(0x1010))
    assert.equal(0x44332211, dma:u32_be(0x1010))
    assert.is_true(dma:u64(0x1018, luna.u64 "0x8877665544332211"))
    assert.is_true(dma:u64(0x1018) == luna.u64 "0x8877665544332211")
  end)

  it("refuses what is not there, whole, whatever the guest chose", function()
    refused("fault", "timer: DMA cannot write 4 bytes at gpa 0x10fe: nothing is mapped at gpa "
      .. "0x1100", dma:write(0x10fe, "abcd"))
    assert.equal("\0\0", dma:read(0x10fe, 2))
    refused("fault", "DMA cannot read 4 bytes at gpa 0xfffffffffffffffe",
      dma:u32(luna.u64 "0xfffffffffffffffe"))
    refused("fault", "the device is attached to no memory", timer().dma:u8(0))
    refused("fault", "timer: DMA cannot read 0xffffffff bytes at gpa 0x1000: 1 GiB is the most",
      dma:read(0x1000, 0xffffffff))
    refused("fault", "0xffffffffffffffff bytes at",
      dma:read(0x1000, luna.u64(2 ^ 32 - 1, 2 ^ 32 - 1)))
    assert.equal("\0\0", dma:read(0x1000, luna.u64(0, 2)))
    for _, size in ipairs { 1.5, "2" } do
      helper.raises("dma:read: size: a number of bytes expected, got " .. size,
        function() dma:read(0x1000, size) end)
    end
  end)

  it("logs what its DMA says with its name once", function()
    local said = {}
    local dev = device "timer" { registers = {} } { log = function(text)
      said[#said + 1] = text
    end }
    dev:log((select(2, dev.dma:u8(0))))
    dev:log "timer"
    assert.same({ "timer: DMA cannot read 1 byte at gpa 0x0: the device is attached to no memory",
      "timer: timer" }, said)
  end)

  it("goes through a translation, in pieces, all or nothing", function()
    dma.translate = function(gpa, size, access)
      if gpa >= 0x20 then return nil, "not allowed to " .. access end
      return 0x1000 + (gpa < 0x10 and gpa or gpa + 0x40), math.min(size, 0x10 - gpa % 0x10)
    end
    assert.is_true(dma:write(0x0e, "abcd"))
    dma.translate = false
    assert.equal("ab", dma:read(0x100e, 2))
    assert.equal("cd", dma:read(0x1050, 2))
    dma.translate = function(gpa) if gpa < 2 then return 0x1000 + gpa, 1 end return 0x5000, 1 end
    refused("fault", "nothing is mapped at gpa 0x5000", dma:write(0, "wxyz"))
    assert.equal("\0", dma:read(0, 1))
  end)

  it("raises for mistakes of the author", function()
    raises("dma:read: gpa: an integer expected", function() dma:read("x", 1) end)
    raises("dma:write: a string expected, got number", function() dma:write(0x1000, 1) end)
    raises("dma:u8: a value of 1 byte expected, got 0x100", function() dma:u8(0x1000, 256) end)
  end)
end)

describe("the layout", function()
  it("tells programs what a device is made of", function()
    local layout = device.layout(timer())
    assert.equal("timer", layout.name)
    local first = layout.registers[1]
    assert.equal("COUNT", first.name)
    assert.equal(5, first.reset)
    assert.equal(0xffff, first.masks.rw)
    assert.equal(0xffff0000, first.masks.reserved)
    assert.same({ "low", 0, 7, "rw" },
      { first.fields[1].name, first.fields[1].low, first.fields[1].high, first.fields[1].access })
    assert.same({ 3, 4 }, { layout.registers[3].count, layout.registers[3].stride })
    assert.same({ { name = "main", size = 44, width = 4, endian = "little", narrow = "merge",
      unknown = "ones" } }, layout.regions)
    assert.same({ "tick" }, layout.timers)
    assert.same({ "file" }, layout.holds)
    assert.is_true(layout.lines[1].ruled)
    raises("device.layout: a device or a class", function() device.layout {} end)
  end)

  it("is there for the class, and neither can be taken for anything else", function()
    local kind = device "k" { registers = {} }
    assert.equal("k", device.layout(kind).name)
    assert.same({ "class", "device" }, { device.is(kind), device.is(kind()) })
    assert.is_nil(device.is {})
  end)
end)

it("tells a device that a state is made of it, and that one was loaded, all of it", function()
  local seen
  local kind = device "told" { registers = { A = { at = 0 } }, state = { b = 1 },
    saving = function(d) d.b = d.b + 1 end, loaded = function(d) seen = { d.A, d.b } end }
  local one = kind()
  one.A, one.b = 5, 5
  assert(kind():load(one:save()))
  assert.same({ 5, 6 }, seen)
end)
