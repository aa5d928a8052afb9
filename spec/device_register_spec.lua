-- SPDX-License-Identifier: MIT
-- Registers of a device's table: what the guest's accesses of every kind do, and the author's side,
-- which has no effects. No VM is needed.

local device = require "lunavisor.device"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local teaching = require "spec.support.edu"
local raises = helper.raises

local function silent(kind, options)
  options = options or {}
  if options.log == nil then options.log = false end
  return kind(options)
end

local function one(entry, more)
  local spec = { width = 4, registers = { R = entry } }
  for key, value in pairs(more or {}) do spec[key] = value end
  return silent(device "one"(spec))
end

local function edu(options)
  return silent(teaching, options)
end

describe("a device of the kit", function()
  it("answers as its table says", function()
    local dev = edu()
    assert.equal(0x010000ed, dev:read(0, 4))
    dev:write(4, 4, 0x12345678)
    assert.equal(0xedcba987, dev:read(4, 4))
    dev:write(0, 4, 1)
    assert.equal(0x010000ed, dev:read(0, 4))
    dev:write(8, 4, 5)
    assert.equal(120, dev:read(8, 4))
  end)

  it("interrupts by its rule, whoever changes what that looks at", function()
    local dev = edu()
    dev.IER = 1
    dev:write(0x20, 4, 0x80)
    dev:write(8, 4, 5)
    assert.is_true(dev.lines.irq)
    dev:write(0x24, 4, 1)
    assert.is_false(dev.lines.irq)
    dev.ISR.done = 1
    assert.is_true(dev.lines.irq)
    dev.IER = 0
    assert.is_false(dev.lines.irq)
    assert.equal(4, dev.irq.edges)
  end)

  it("says what is not modelled, once a change, and keeps it", function()
    local said = {}
    local dev = edu { log = function(text) said[#said + 1] = text end }
    dev:write(0x20, 4, 0x300)
    dev:write(0x20, 4, 0x380)
    assert.same({ "edu: STATUS.dma = 0x3: not modelled (edu.rst, DMA)" }, said)
    assert.equal(0x380, dev:read(0x20, 4))
    assert.equal(1, dev.todos["STATUS.dma"])
  end)

  it("makes instances that know nothing of one another", function()
    local kind = device "pair" { registers = { A = { at = 0, fields = { low = "3:0" } } } }
    local first, second = kind(), kind { name = "second" }
    first.A.low = 5
    assert.equal(0, second.A.low)
    assert.equal("second", second.name)
  end)
end)

describe("access", function()
  -- What is stored after the guest has written `value` over `old`.
  local function written(access, old, value)
    local dev = one { at = 0, access = access }
    dev.R = old
    dev:write(0, 4, value)
    return dev.R
  end

  local cases = {
    ro = 0xf0f0a5a5, rw = 0x0ff0ffff, wo = 0x0ff0ffff, w1c = 0xf0000000, w1s = 0xfff0ffff,
    w0c = 0x00f0a5a5, wc = 0, toggle = 0xff005a5a, rc = 0xf0f0a5a5, rs = 0xf0f0a5a5,
  }
  for access, result in pairs(cases) do
    it(access .. " does with a write what it says", function()
      assert.equal(result, written(access, 0xf0f0a5a5, 0x0ff0ffff))
    end)
  end

  it("rc and rs change by a read, and the read shows what was", function()
    for access, after in pairs { rc = 0, rs = 0xffffffff } do
      local dev = one { at = 0, access = access }
      dev.R = 0x80000001
      assert.equal(0x80000001, dev:read(0, 4))
      assert.equal(after, dev.R)
    end
  end)

  it("wo and reserved bits read as zeros", function()
    local dev = one { at = 0, fields = { command = { "3:0", "wo" }, mode = "7:4" } }
    dev:write(0, 4, 0xffffffff)
    assert.equal(0xf0, dev:read(0, 4))
    assert.equal(0xf, dev.R.command)
    assert.equal(0xff, dev.R.value)
  end)

  it("const bits are as reset says, for the author too", function()
    local dev = one { at = 0, fields = { id = { "7:0", "const", reset = 0x42 }, other = 8 } }
    dev:write(0, 4, 0x1ff)
    assert.equal(0x142, dev:read(0, 4))
    raises("one.R.id is const: it cannot be set", function() dev.R.id = 1 end)
    raises("bits 0x1 are constant", function() dev.R = 0x43 end)
  end)

  it("of each field is its own, and rest is that of the other bits", function()
    local dev = one { at = 0, access = "w1c", rest = "rw", fields = {
      done = 0, error = 1, busy = { 2, "ro" }, mode = { "5:4", "rw" } } }
    dev.R = 0x7
    dev:write(0, 4, 0xffffff32)
    assert.equal(0xffffff35, dev.R.value)
  end)

  it("is right for registers of every width", function()
    for _, width in ipairs { 1, 2, 4, 8 } do
      local top = luna.u64.lshift(1, 8 * width - 1)
      local plain = width < 8 and luna.u64.tonumber(top) or top
      local dev = one { at = 0, width = width, fields = { top = 8 * width - 1, flag = { 0, "w1c" },
        between = { ("%d:1"):format(8 * width - 2), "ro" } } }
      dev.R.flag = 1
      dev:write(0, width, plain + (width < 8 and 1 or luna.u64(1)))
      assert.equal(plain, dev:read(0, width))
      assert.equal(1, dev.R.top)
      assert.equal(0, dev.R.flag)
      dev.R.top = 0
      assert.is_true(dev:read(0, width) == (width < 8 and 0 or luna.u64(0)))
    end
  end)
end)

describe("hooks", function()
  it("see the new value, the old one, and what was written", function()
    local seen
    local dev = one { at = 0, access = "w1c", write = function(_, ...) seen = { ... } end }
    dev.R = 7
    dev:write(0, 4, 5)
    assert.same({ 2, 7, 5 }, seen)
  end)

  it("of fields see theirs", function()
    local seen, given
    local dev = one { at = 0, fields = { go = { 3, "wo", write = function(_, ...)
      seen = { ... }
    end }, level = { "15:8", "ro", read = function(_, value)
      given = value
      return 0x5a
    end } } }
    dev.R.level = 3
    dev:write(0, 4, 8)
    assert.same({ 1, 0, 1 }, seen)
    assert.equal(0x5a00, dev:read(0, 4))
    assert.equal(3, given)
    assert.equal(3, dev.R.level)
  end)

  it("of reads come behind the clearing, so that what they set stays", function()
    local dev = one { at = 0, access = "rc", read = function(d) d.R = 4 end }
    dev.R = 3
    assert.equal(3, dev:read(0, 4))
    assert.equal(4, dev.R)
  end)

  it("that give what is no value say which register", function()
    for _, bad in ipairs { -1, 2 ^ 32, 0.5, "x" } do
      local dev = one { at = 0, read = function() return bad end }
      local ok, message = pcall(dev.read, dev, 0, 4)
      assert.is_false(ok)
      helper.contains("one.R: read gave", message)
    end
  end)

  it("have the register's name in tracebacks", function()
    local dev = one { at = 0, write = function() error "boom" end }
    local _, trace = xpcall(dev.write, debug.traceback, dev, 0, 4, 0)
    helper.contains("one.R write", trace)
  end)
end)

describe("the author's side", function()
  it("has no effects", function()
    local calls = 0
    local function count() calls = calls + 1 end
    local dev = one { at = 0, access = "rc", read = count, write = count }
    dev.R = 5
    assert.equal(5, dev.R)
    assert.equal(5, dev.R)
    assert.equal(0, calls)
  end)

  it("refuses names that are not there, at the author's line", function()
    local dev = edu()
    raises("device edu has no register, field or method STTUS; did you mean 'STATUS'?",
      function() return dev.STTUS end)
    raises("device edu has no register, field or method connect; lines have: dev.irq:connect(...)",
      function() return dev.connect end)
    local _, message = pcall(function() return one({ at = 0 }).connect end)
    assert.matches("device one has no register, field or method connect$", message)
    raises("register edu.STATUS has no field bussy; did you mean 'busy'?",
      function() return dev.STATUS.bussy end)
    raises("register edu.STATUS has no field rise; did you mean 'raise'?",
      function() dev.STATUS.rise = 1 end)
    raises("has no register or field count that can be set", function() dev.count = 1 end)
    raises("device edu has no line ir", function() return dev.lines.ir end)
    raises("it follows its rule", function() dev.lines.irq = true end)
  end)

  it("refuses values that do not fit", function()
    local dev = edu()
    raises("edu.STATUS.raise: a value of 1 bit expected, got 0x2",
      function() dev.STATUS.raise = 2 end)
    raises("edu.IER: a value of 32 bits expected", function() dev.IER = 2 ^ 32 end)
    raises("edu.IER: a value of 32 bits expected", function() dev.IER = -1 end)
    raises("edu.IER: a value of 32 bits expected, got string", function() dev.IER = "1" end)
    raises("bits 0x2 of 0x2 are reserved", function() dev.STATUS = 2 end)
  end)

  it("takes names of an enumeration, and shows them", function()
    local modes = { off = 0, slow = 1, fast = 2 }
    local dev = one { at = 0, fields = { mode = { "1:0", enum = modes } } }
    dev.R.mode = "fast"
    assert.equal(2, dev:read(0, 4))
    assert.equal(2, dev.R.mode)
    assert.equal("one.R 0x2 (mode=fast)", tostring(dev.R))
    raises("there is no 'fsat'; did you mean 'fast'?", function() dev.R.mode = "fsat" end)
  end)
end)

describe("an array", function()
  local function coefficients()
    return silent(device "filter" { width = 4, registers = {
      COEFF = { at = 0x40, count = 4, stride = 8, fields = { low = "7:0", on = 31 },
        write = function(dev, new, _, _, index) dev.last = { index, new } end },
    }, holds = "last" })
  end

  it("has its elements at their stride", function()
    local dev = coefficients()
    dev:write(0x50, 4, 0x80000012)
    assert.equal(0x12, dev.COEFF[2].low)
    assert.equal(1, dev.COEFF[2].on)
    assert.same({ 2, 0x80000012 }, dev.last)
    dev.COEFF[3].low = 9
    assert.equal(9, dev:read(0x58, 4))
    assert.equal(0xffffffff, dev:read(0x54, 4))
  end)

  it("has no others", function()
    local dev = coefficients()
    raises("filter.COEFF: an index from 0 to 3 expected, got 4", function() return dev.COEFF[4] end)
    raises("filter.COEFF is an array", function() dev.COEFF = 1 end)
  end)
end)

describe("a FIFO", function()
  local function fifo(entry)
    entry.at, entry.fifo = 0, entry.fifo or 4
    return one(entry)
  end

  it("gives what the guest has written, in order, and zeros when it is empty", function()
    local dev = fifo { width = 1, trigger = 2 }
    for value = 1, 6 do dev:write(0, 1, value) end
    assert.equal(4, dev.R.count)
    assert.is_true(dev.R.full and dev.R.triggered)
    assert.equal(2, dev.R.lost)
    for value = 1, 4 do assert.equal(value, dev:read(0, 1)) end
    assert.equal(0, dev:read(0, 1))
    assert.is_true(dev.R.empty)
  end)

  it("is the author's by push and pop", function()
    local dev = fifo { access = "ro" }
    assert.is_true(dev.R:push(7))
    dev:write(0, 4, 1)
    assert.equal(1, dev.R.count)
    assert.equal(7, dev.R:peek())
    assert.equal(7, dev:read(0, 4))
    raises("R: 0x100000000 is no value of 4 bytes", function() dev.R:push(2 ^ 32) end)
    raises("is a FIFO: push, pop or clear it", function() dev.R = 1 end)
  end)

  it("moves lines that look at it", function()
    local dev = silent(device "rx" {
      registers = { DATA = { at = 0, fifo = 4, access = "ro" } },
      lines = { irq = function(d) return not d.DATA.empty end },
    })
    dev.DATA:push(1)
    assert.is_true(dev.lines.irq)
    dev:read(0, 4)
    assert.is_false(dev.lines.irq)
  end)
end)

describe("registers at one place", function()
  it("are read and written apart", function()
    local wrote
    local dev = silent(device "uart" { width = 1, registers = {
      IIR = { at = 2, access = "ro", reset = 1 },
      FCR = { at = 2, access = "wo", write = function(_, new) wrote = new end },
    } })
    dev:write(2, 1, 0xc7)
    assert.equal(1, dev:read(2, 1))
    assert.equal(0xc7, dev.FCR)
    assert.equal(0xc7, wrote)
  end)

  it("are chosen by when, whatever their order", function()
    local dev = silent(device "uart" { width = 1, registers = {
      LCR = { at = 3, fields = { dlab = 7, rest = "6:0" } },
      RBR = { at = 0, access = "ro" },
      THR = { at = 0, access = "wo" },
      DLL = { at = 0, when = function(d) return d.LCR.dlab == 1 end },
    } })
    dev.RBR = 0x11
    dev:write(0, 1, 0x22)
    dev:write(3, 1, 0x80)
    assert.equal(0, dev:read(0, 1))
    dev:write(0, 1, 0x33)
    assert.equal(0x33, dev:read(0, 1))
    dev:write(3, 1, 0)
    assert.equal(0x11, dev:read(0, 1))
    assert.equal(0x22, dev.THR)
    assert.equal(0x33, dev.DLL)
  end)
end)

describe("a follower", function()
  it("follows at once, or after its time", function()
    local dev = one { at = 0, fields = { enable = 0,
      ready = { 25, follows = "enable" }, locked = { 26, follows = "enable", after = 10e-6 } } }
    dev:write(0, 4, 1)
    assert.equal(0x2000001, dev:read(0, 4))
    dev.clock:advance(9e-6)
    assert.equal(0, dev.R.locked)
    dev.clock:advance(1e-6)
    assert.equal(0x6000001, dev:read(0, 4))
    dev.R.enable = 0
    assert.equal(0, dev.R.ready)
  end)
end)

describe("a region without registers", function()
  it("takes each access as the guest made it, and lines follow", function()
    local seen = {}
    local dev = device "window" {
      regions = { main = { size = 16,
        read = function(_, offset, size) return 16 * offset + size end,
        write = function(d, offset, size, value)
          seen = { offset, size, value }
          d.level = value ~= 0
        end } },
      state = { level = false }, lines = { out = function(d) return d.level end },
    } ()
    assert.equal(0x34, dev:read(3, 4))
    dev:write(5, 2, 0xabcd)
    assert.same({ 5, 2, 0xabcd }, seen)
    assert.is_true(dev.lines.out)
    assert.is_string(tostring(dev))
  end)
end)

it("an unknown function that answers nothing answers ones", function()
  local dev = silent(device "d" { unknown = function() end, registers = { A = { at = 8 } } })
  assert.equal(0xffff, dev:read(0, 2))
  assert.equal(0xffffffff, dev:read(4, 4))
end)
