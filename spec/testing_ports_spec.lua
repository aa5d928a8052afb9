-- SPDX-License-Identifier: MIT
-- The tests that a device's table gives of registers that lead to others, of registers that are not
-- on the bus, of arrays with values of their own, and of regions without registers. No VM is
-- needed.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local t = require "lunavisor.testing"
local contains = helper.contains

local function doors(change)
  local registers = {
    CMD = { at = 0, access = "wo", match = {
      ["---1--sn"] = function(dev) dev:start "DATA" end,
      ["0110 0lll"] = function(dev, f) dev.LAST = f.l end,
    } },
    DATA = { at = 1, sequence = { "ICW2",
      { "ICW4", when = function(dev) return dev.ICW2 % 2 == 1 end }, rest = "IMR" } },
    PORT = { at = 2, pair = "COUNT" },
    HIGH = { at = 3, pair = "WIDE", first = "high", shared = true },
    ICW2 = { at = false }, ICW4 = { at = false, reset = 3 }, LAST = { at = false },
    IMR = { at = false, fields = { a = "3:0", b = { 4, "w1c" } } },
    COUNT = { at = false, width = 2, access = "rc", reset = 0x1234 },
    WIDE = { at = false, width = 4 },
    INDEX = { at = 4, fields = { index = "5:0", on = 7 } },
    BANK = { at = 5, bank = "bank", index = "INDEX.index", step = 1 },
    TABLE = { at = 8, count = 4, reset = { 1, 2, 3 } },
    TEXT = { at = 16, count = 4, reset = "abcd", access = "ro" },
  }
  if change then change(registers) end
  return device "doors" {
    width = 1,
    regions = {
      main = { registers = registers },
      bank = { unknown = "zeros", registers = {
        A = { at = 0 }, B = { at = 1, access = "w1c", reset = 255 },
        RAM = { at = 16, count = 16, reset = "hello" }, R = { at = 40, access = "rc", reset = 7 },
      } },
      hole = { size = 16, write = function() end,
        read = function(_, _, size) return size == 8 and 5 or 1 end },
    },
  }
end

-- What the tests find, by their names; read and write stand before the region main.
local function found(read, write)
  local wrong, kind = {}, doors()
  local function make(options)
    local d = kind(options)
    local own = d.regions.main
    d.regions.main = { name = own.name, size = own.size,
      read = read and function(_, offset, size)
        return read(own.read(own, offset, size), offset, d)
      end or own.read,
      write = write and function(_, offset, size, value)
        own.write(own, offset, size, write(value, offset, d) or value)
      end or own.write }
    return d
  end
  for _, test in ipairs(t.derive(make)) do wrong[test.name] = test.check() end
  return wrong
end

describe("t.registers of a device with doors", function()
  t.registers(doors())
end)

describe("a derived test of a door finds", function()
  it("a byte of a pair that is not its register's", function()
    local wrong = found(function(value, offset) return offset == 2 and 0 or value end)
    contains("read 1 of PORT gave 0x0, and COUNT is 0x", wrong["PORT gives the bytes of COUNT"])
    assert.is_nil(wrong["HIGH gives the bytes of WIDE"])
  end)

  it("bytes of a pair that arrive otherwise", function()
    local wrong = found(nil, function(value, offset) return offset == 3 and 7 or value end)
    contains("HIGH: the bytes of 0x", wrong["HIGH takes the bytes of WIDE"])
    contains("left 0x7070707 in WIDE", wrong["HIGH takes the bytes of WIDE"])
  end)

  it("a sequence that goes astray", function()
    local wrong = found(nil, function(value, offset)
      return offset == 1 and (value + 1) % 256 or value
    end)
    contains("sequence: a write of 0x", wrong["DATA leads through its sequence"])
    wrong = found(function(value, offset) return offset == 1 and 255 - value or value end)
    contains("a read of DATA gave 0x", wrong["DATA leads through its sequence"])
  end)

  it("a bank with another thing in it", function()
    local wrong = found(function(value, offset)
      return offset == 5 and (value + 1) % 256 or value
    end)
    contains("a read of BANK gave 0x1, and 0x0 of region bank at index 0",
      wrong["BANK leads to its bank"])
    wrong = found(nil, function(value, offset) return offset == 5 and 0 or value end)
    contains("an access to BANK does another thing to A than one to region bank at index 0",
      wrong["BANK leads to its bank"])
    wrong = found(function(value, offset, d)
      if offset == 5 then d.INDEX.index = 0 end
      return value
    end)
    contains("an access to BANK with index 0 left 0 in INDEX.index",
      wrong["BANK leads to its bank"])
  end)

  it("an element of an array with another reset value", function()
    local kind = doors()
    local wrong = {}
    for _, test in ipairs(t.derive(function(options)
      local d = kind(options)
      d.TABLE[2], d.ICW4 = 9, 1
      return d
    end)) do wrong[test.name] = test.check() end
    contains("TABLE is 0x9 in a new device, and the table says 0x3 (element 2)",
      wrong["TABLE has its reset value"])
    contains("ICW4 is 0x1 in a new device, and the table says 0x3",
      wrong["ICW4 has its reset value"])
  end)

  it("a command that no pattern's function takes", function()
    local wrong = {}
    for _, test in ipairs(t.derive(doors(function(registers)
      registers.CMD.match["01011111"] = function() error("no such command", 0) end
    end))) do wrong[test.name] = test.check() end
    contains("a write of 0x5f to CMD raises: no such command", wrong["CMD takes any value"])
  end)

  it("what a reset leaves, but for what it keeps", function()
    local function kept(keeps)
      local wrong = {}
      for _, test in ipairs(t.derive(device "kept" { keeps = keeps, state = { n = 0, m = 0 },
        registers = { R = { at = 0, write = function(dev) dev.n = dev.n + 1 end } },
        reset = function(dev) dev.m = dev.n end })) do wrong[test.name] = test.check() end
      return wrong["is after a reset as it was at first"]
    end
    assert.is_nil(kept())
    contains("after a reset: state.m was 0 and is", kept "n")
  end)
end)

describe("a device's layout", function()
  it("says where its doors lead, what it keeps, and which regions are whole", function()
    local layout, by = device.layout(doors()), {}
    for _, register in ipairs(layout.registers) do by[register.name] = register end
    assert.equal("pair", by.PORT.port)
    assert.equal("COUNT", by.PORT.leads_to.target)
    assert.is_true(by.HIGH.leads_to.high_first)
    assert.equal("ICW4", by.DATA.leads_to.steps[2].name)
    assert.is_function(by.DATA.leads_to.steps[2].when)
    assert.equal("IMR", by.DATA.leads_to.rest)
    assert.same({ kind = "bank", region = "bank", index = "INDEX.index", step = 1 },
      by.BANK.leads_to)
    assert.is_nil(by.CMD.leads_to)
    assert.same({}, layout.keeps)
    assert.is_nil(layout.regions[1].whole)
    assert.is_true(layout.regions[2].whole)
  end)
end)

describe("a reset", function()
  it("puts down a line that is the device's own", function()
    local d = device "lit" { registers = {}, lines = { out = true } } ()
    d.lines.out = true
    d:reset()
    assert.is_false(d.lines.out)
    assert.equal(2, d.out.edges)
  end)
end)
