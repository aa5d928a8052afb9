-- SPDX-License-Identifier: MIT
-- The tests that a device's table gives by itself: a right device passes all, and each of them
-- finds a wrong device. No VM is needed.

local device = require "lunavisor.device"
local edu = require "spec.support.edu"
local helper = require "spec.support.helper"
local t = require "lunavisor.testing"
local contains, raises = helper.contains, helper.raises

-- Every kind of access, width and shape that a table can have.
local kinds = device "kinds" {
  unknown = "zeros", endian = "big",
  registers = {
    W1S = { at = 0x00, access = "w1s" }, W0C = { at = 0x04, access = "w0c" },
    WC = { at = 0x08, access = "wc", reset = 5 }, TOGGLE = { at = 0x0c, access = "toggle" },
    RC = { at = 0x10, access = "rc", reset = 0xf0 }, RS = { at = 0x14, access = "rs" },
    CONST = { at = 0x18, access = "const", reset = 0x1234 },
    WIDE = { at = 0x20, width = 8, fields = { low = "31:0", high = { "63:60", "w1c" } } },
    BYTE = { at = 0x28, width = 1, narrow = "refuse" }, WORD = { at = 0x2a, width = 2 },
    COEFF = { at = 0x40, count = 4, stride = 8, fields = { on = 0, gain = "15:8" } },
    QUEUE = { at = 0x60, fifo = 4, reset = 0xff },
    CTRL = { at = 0x68, fields = { on = 0, bank = 1 } },
    STAT = { at = 0x6c, fields = { ready = { 0, follows = "CTRL.on" } } },
    BANK0 = { at = 0x70, access = "ro", reset = 7 },
    BANK1 = { at = 0x70, when = function(dev) return dev.CTRL.bank == 1 end },
    IIR = { at = 0x74, access = "ro", reset = 1 }, FCR = { at = 0x74, access = "wo" },
  },
}

-- What the tests of a device find: texts by the tests' names.
local function found(what, options)
  local wrong = {}
  for _, test in ipairs(t.derive(what, options)) do wrong[test.name] = test.check() end
  return wrong
end

-- A function that makes devices of a class and tampers with each; through(read, write) puts other
-- functions before its region's.
local function made(kind, tamper)
  return function(options)
    local d = kind(options)
    tamper(d, function(read, write)
      local own = d.regions.main
      d.regions.main = { name = own.name, size = own.size,
        read = read and function(_, offset, size)
          return read(function(...) return own:read(...) end, offset, size)
        end or own.read,
        write = write and function(_, offset, size, value)
          return write(function(...) return own:write(...) end, offset, size, value)
        end or own.write }
    end)
    return d
  end
end

local function catches(name, kind, tamper, text)
  local wrong = found(made(kind, tamper))[name]
  if not wrong then error(("the test '%s' finds nothing"):format(name), 2) end
  contains(text, wrong)
end

describe("t.registers", function()
  describe("of a right device", function()
    t.registers(edu)
  end)

  describe("of one with everything", function()
    t.registers(kinds)
  end)

  it("has thirty tests and more for a small device", function()
    assert.is_true(#t.derive(edu) >= 30)
    assert.same({}, found(edu))
    assert.same({}, found(kinds))
  end)

  it("takes an instance, a bus and what they are made with", function()
    assert.equal(#t.derive(edu), #t.derive(edu { log = false }))
    assert.equal(#t.derive(edu), #t.derive(t.bus(edu)))
    local kind = device "opt" { options = { id = 3 }, registers = { ID = { at = 0, reset = 3 } },
      reset = function(dev) dev.ID = dev.options.id end }
    assert.same({}, found(kind))
    contains("ID is 0x9 in a new device", found(kind, { options = { id = 9 } })
      ["ID has its reset value"])
  end)

  it("leaves out what it is told to, with the reason", function()
    local left = {}
    for _, test in ipairs(t.derive(edu, { except = { ID = "not yet",
      ["is not changed by a dump"] = "later" } })) do
      if test.except then left[#left + 1] = test.except end
    end
    assert.same({ "not yet", "not yet", "not yet", "not yet", "later" }, left)
    raises("there is no register or test 'IDD'; did you mean 'ID'?", function()
      t.derive(edu, { except = { IDD = "?" } })
    end)
    raises("unknown option 'expect'; did you mean 'except'?", function()
      t.derive(edu, { expect = {} })
    end)
    raises("a class of devices, or a function(options) that makes one, expected, got number",
      function() t.derive(5) end)
  end)
end)

describe("a derived test finds", function()
  it("another reset value", function()
    catches("IER has its reset value", edu, function(d) d.IER = 5 end,
      "IER is 0x5 in a new device, and the table says 0x0")
  end)

  it("a read-only bit that a write changes", function()
    catches("ID bits 0xffffffff are left by any write", edu, function(d, through)
      through(nil, function(write, offset, size, value)
        write(offset, size, value)
        if offset == 0 then d.ID = value end
      end)
    end, "ID: a write of 0x0 over 0xffffffff left 0x0")
  end)

  it("a bit that does not keep what is written", function()
    catches("IER bits 0xffffffff keep what is written", edu, function(_, through)
      through(nil, function(write, offset, size, value)
        write(offset, size, offset == 0x28 and value >= 2 ^ 31 and value - 2 ^ 31 or value)
      end)
    end, "left 0x7fffffff, not 0xffffffff")
  end)

  it("a bit that a zero clears", function()
    catches("ISR bits 0x101 are cleared by writing 1 and left by writing 0", edu,
      function(d, through)
        through(nil, function(write, offset, size, value)
          write(offset, size, value)
          if offset == 0x24 then d.ISR = 0 end
        end)
      end, "left 0x0, not 0x101")
  end)

  local lost = function(offset)
    return function(_, through)
      through(nil, function(write, at, size, value)
        if at ~= offset then write(at, size, value) end
      end)
    end
  end
  for name, offset in pairs {
    ["W1S bits 0xffffffff are set by writing 1 and left by writing 0"] = 0,
    ["W0C bits 0xffffffff are cleared by writing 0 and left by writing 1"] = 4,
    ["WC bits 0xffffffff are cleared by any write"] = 8,
    ["TOGGLE bits 0xffffffff change by writing 1 and stay by writing 0"] = 0xc } do
    it("what a write of " .. name:match "%S+" .. " must do", function()
      catches(name, kinds, lost(offset), "a write of")
    end)
  end

  for name, wrong in pairs { ["RC bits 0xffffffff are cleared by a read"] = "RC",
    ["RS bits 0xffffffff are set by a read"] = "RS" } do
    it("what a read of " .. wrong .. " must do", function()
      catches(name, kinds, function(d, through)
        through(function(read, offset, size)
          local before = d[wrong]
          local value = read(offset, size)
          d[wrong] = before
          return value
        end)
      end, wrong .. ": a read of")
    end)
  end

  it("a write that changes what only a read may", function()
    catches("RC bits 0xffffffff are left by any write", kinds, function(d, through)
      through(nil, function(_, offset)
        if offset == 0x10 then d.RC = 3 end
      end)
    end, "RC: a write of")
  end)

  it("reserved bits that are read", function()
    catches("STATUS reads reserved bits as zero", edu, function(_, through)
      through(function(read, offset, size)
        return offset == 0x20 and size == 4 and read(offset, size) + 2 ^ 31 or read(offset, size)
      end)
    end, "reserved bits 0xfffff07e are 0x80000000")
  end)

  it("a width that is read wrongly", function()
    catches("ID is read in every width and alignment", edu, function(_, through)
      through(function(read, offset, size)
        return size == 2 and 0 or read(offset, size)
      end)
    end, "2-byte read at ID (offset 0x0) gave 0x0, not 0xed")
  end)

  it("a width that is written wrongly", function()
    catches("IER is written in every width and alignment", edu, function(_, through)
      through(nil, function(write, offset, size, value)
        write(offset, size, size == 1 and 0 or value)
      end)
    end, "left a difference: IER is")
  end)

  it("a value that a register's function does not take", function()
    catches("FACT takes any value", device "small" {
      registers = { FACT = { at = 0, write = function(_, n) assert(n ~= 13, "thirteen") end } },
    }, function() end, "a write of 0xd to FACT raises: ")
  end)

  it("now and then a lost write", function()
    local turn = 0
    catches("answers random accesses as its table says (1)", edu, function(_, through)
      through(nil, function(write, ...)
        turn = turn + 1
        if turn % 20 ~= 0 then write(...) end
      end)
    end, "(seed 1): ")
  end)

  it("a timer that raises", function()
    catches("raises nothing while time passes", device "ticker" {
      registers = { A = { at = 0 } }, timers = { tick = function() error("tick", 0) end },
      reset = function(dev) dev:after(0.05, "tick") end,
    }, function() end, "s raise: tick")
  end)

  it("an offset that answers though no register is there", function()
    catches("region main has offsets where no register is", edu, function(_, through)
      through(function(read, offset, size)
        return offset == 0x10 and 0 or read(offset, size)
      end)
    end, "1-byte read at offset 0x10 gave 0x0, not 0xff")
  end)

  it("a line that does not follow its rule", function()
    catches("line irq follows its rule", edu, function(d)
      d.lines = setmetatable({}, { __index = function() return false end })
    end, "line irq is down, and should be up")
  end)

  it("an answer by chance", function()
    local calls = 0
    catches("answers the same accesses the same in every instance", device "dice" {
      registers = { R = { at = 0, read = function()
        calls = calls + 1
        return calls
      end } },
    }, function() end, "two devices, the same accesses: access ")
  end)

  it("what a reset leaves", function()
    catches("is after a reset as it was at first", device "left" { holds = "n",
      registers = { R = { at = 0, read = function(dev) return dev.n or 0 end,
        write = function(dev) dev.n = (dev.n or 0) + 1 end } },
    }, function() end, "new, and after a reset: access ")
  end)

  it("what a state does not have", function()
    local own = setmetatable({}, { __mode = "k" })
    catches("goes on after save and load as before", device "hidden" {
      registers = { R = { at = 0, read = function(dev) return own[dev] or 0 end,
        write = function(dev, value) own[dev] = value end } },
      reset = function(dev) own[dev] = nil end,
    }, function() end, "after save and load: access ")
  end)

  it("a dump that has effects", function()
    catches("is not changed by a dump", edu, function(d)
      local dump = d.dump
      rawset(d, "dump", function(...)
        d.ISR.done = 1 - d.ISR.done
        return dump(...)
      end)
    end, "a dump: registers.ISR was")
  end)

  it("a save that has effects", function()
    catches("is not changed by being saved", edu, function(d)
      local save = d.save
      rawset(d, "save", function(...)
        d.FACT = (d.FACT + 1) % 2 ^ 32
        return save(...)
      end)
    end, "being saved: registers.FACT was")
  end)
end)
