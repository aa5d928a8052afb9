-- SPDX-License-Identifier: MIT
-- What command ports need: patterns, sequences, pairs, and banks behind an index. No VM is needed.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local raises = helper.raises

local function make(spec)
  return device "d"(spec) { log = false }
end

local function refused(text, registers)
  local ok, message = pcall(make, { width = 1, registers = registers })
  assert.is_false(ok)
  helper.contains(text, message)
end

describe("match", function()
  it("calls the most exact pattern that fits, with its fields", function()
    local seen = {}
    local function note(name)
      return function(_, f) seen[#seen + 1] = { name, f } end
    end
    local dev = make { width = 1, registers = { CMD = { at = 0, access = "wo", match = {
      ["rse00lll"] = note "ocw2", ["-mm01prr"] = note "ocw3", ["---1-sni"] = note "icw1",
      ["0110 0lll"] = note "specific eoi", ["--------"] = note "other",
    } } } }
    for _, value in ipairs { 0x63, 0xa5, 0x6b, 0x13 } do dev:write(0, 1, value) end
    assert.same({
      { "specific eoi", { value = 0x63, l = 3 } },
      { "ocw2", { value = 0xa5, r = 1, s = 0, e = 1, l = 5 } },
      { "ocw3", { value = 0x6b, m = 3, p = 0, r = 3 } },
      { "icw1", { value = 0x13, s = 0, n = 1, i = 1 } },
    }, seen)
  end)

  it("says where nothing fits", function()
    local said = {}
    local dev = device "d" { width = 1, registers = { CMD = { at = 0, match = {
      ["1-------"] = function() end } } } } { log = function(text) said[#said + 1] = text end }
    dev:write(0, 1, 1)
    assert.same({ "d: CMD: no pattern fits the command 0x1" }, said)
  end)

  it("refuses patterns of another length, of other signs, and ambiguous ones", function()
    local function with(patterns)
      local match = {}
      for _, text in ipairs(patterns) do match[text] = print end
      return { CMD = { at = 0, match = match } }
    end
    refused('match: "1--" has 3 bits, and the register 8', with { "1--" })
    refused("0, 1, letters and - expected", with { "1------?" })
    refused('match: "-------1" and "1-------" fit the same values', with { "-------1", "1-------" })
    refused("a function for each pattern", { CMD = { at = 0, match = { ["--------"] = 1 } } })
    refused("match and write: one or the other", { CMD = { at = 0, match = {}, write = print } })
  end)
end)

describe("a sequence", function()
  local function pic()
    return make { width = 1, registers = {
      CMD = { at = 0, access = "wo", match = { ["---1--sn"] = function(dev, f)
        dev.ICW1 = f.value
        dev:start "DATA"
      end, ["---0----"] = function() end } },
      DATA = { at = 1, sequence = {
        "ICW2",
        { "ICW3", when = function(dev) return dev.ICW1.single == 0 end },
        { "ICW4", when = function(dev) return dev.ICW1.four == 1 end }, rest = "IMR",
      } },
      ICW1 = { at = false, fields = { single = 1, four = 0 }, rest = "rw" },
      ICW2 = { at = false }, ICW3 = { at = false }, ICW4 = { at = false },
      IMR = { at = false, reset = 0xff },
    } }
  end

  it("gives one write after the other to its registers, and the others to the rest", function()
    local dev = pic()
    for _, value in ipairs { 0x20, 0x04, 0x01, 0xfe } do
      if value == 0x20 then dev:write(0, 1, 0x11) end
      dev:write(1, 1, value)
    end
    assert.same({ 0x20, 0x04, 0x01, 0xfe }, { dev.ICW2, dev.ICW3, dev.ICW4, dev.IMR })
    assert.equal(0xfe, dev:read(1, 1))
    assert.equal(0, dev:read(0, 1))
  end)

  it("leaves steps out, and is at its end before it is started", function()
    local dev = pic()
    dev:write(1, 1, 0x55)
    assert.equal(0x55, dev.IMR)
    dev:write(0, 1, 0x12)
    dev:write(1, 1, 0x30)
    dev:write(1, 1, 0x66)
    assert.same({ 0x30, 0, 0, 0x66 }, { dev.ICW2, dev.ICW3, dev.ICW4, dev.IMR })
    raises("dev:start: device d has no sequence or pair DATE; did you mean 'DATA'?",
      function() dev:start "DATE" end)
  end)

  it("is part of the state", function()
    local dev, other = pic(), pic()
    dev:write(0, 1, 0x11)
    dev:write(1, 1, 0x20)
    assert(other:load(dev:save()))
    other:write(1, 1, 9)
    assert.equal(9, other.ICW3)
  end)

  it("names registers that there are", function()
    refused("sequence: there is no register B", { A = { at = 0, sequence = { "B" } } })
    refused("sequence: a register without hooks",
      { A = { at = 0, sequence = { "B" }, read = print }, B = { at = false } })
  end)
end)

describe("a pair", function()
  it("is written and read low byte first, latched, each direction for itself", function()
    local written
    local dev = make { width = 1, registers = {
      PORT = { at = 0, pair = "COUNT" },
      COUNT = { at = false, width = 2, write = function(_, new) written = new end },
    } }
    dev:write(0, 1, 0x34)
    assert.is_nil(written)
    assert.equal(0, dev:read(0, 1))
    dev:write(0, 1, 0x12)
    assert.equal(0x1234, written)
    assert.equal(0, dev:read(0, 1))
    assert.equal(0x34, dev:read(0, 1))
    dev.COUNT = 0xffff
    assert.equal(0x12, dev:read(0, 1))
    assert.equal(0xff, dev:read(0, 1))
    dev:start "PORT"
    assert.equal(0xff, dev:read(0, 1))
  end)

  it("can begin with the high byte, of wider registers, with one flip-flop", function()
    local dev = make { width = 1, registers = {
      PORT = { at = 0, pair = "ADDRESS", first = "high", shared = true },
      ADDRESS = { at = false, width = 4, reset = 0x11223344 },
    } }
    for _, byte in ipairs { 0x11, 0x22, 0x33, 0x44 } do
      assert.equal(byte, dev:read(0, 1))
    end
    dev:read(0, 1)
    for _ = 1, 3 do dev:write(0, 1, 0xaa) end
    assert.equal(0xaaaaaa, dev.ADDRESS % 2 ^ 24)
  end)

  it("is for a register of 1 byte and a wider one", function()
    refused("pair: a register of 1 byte", { A = { at = 0, pair = "B" }, B = { at = false } })
    refused("first: 'low' or 'high' expected",
      { A = { at = 0, pair = "B", first = "hi" }, B = { at = false, width = 2 } })
  end)
end)

describe("a bank", function()
  local function cmos(step)
    return make { width = 1, regions = {
      ports = { registers = {
        INDEX = { at = 0, fields = { address = "6:0", nmi = 7 } },
        DATA = { at = 1, bank = "cmos", index = "INDEX.address", step = step },
      } },
      cmos = { unknown = "zeros", registers = {
        SECONDS = { at = 0, reset = 0x59 }, STATUS = { at = 0xc, access = "rc" },
        RAM = { at = 0xe, count = 114, reset = "\1\2\3" },
      } },
    } }
  end

  it("is read and written at the index", function()
    local dev = cmos()
    local bus = dev.regions.ports
    bus:write(0, 1, 0x80)
    assert.equal(0x59, bus:read(1, 1))
    bus:write(0, 1, 0xf)
    assert.equal(2, bus:read(1, 1))
    bus:write(1, 1, 0x77)
    assert.equal(0x77, dev.RAM[1])
    dev.STATUS = 0x10
    bus:write(0, 1, 0xc)
    assert.equal(0x10, bus:read(1, 1))
    assert.equal(0, bus:read(1, 1))
    bus:write(0, 1, 0xd)
    assert.equal(0, bus:read(1, 1))
  end)

  it("can go on by itself", function()
    local bus = cmos(1).regions.ports
    bus:write(0, 1, 0xe)
    assert.same({ 1, 2, 3, 0 }, { bus:read(1, 1), bus:read(1, 1), bus:read(1, 1), bus:read(1, 1) })
    bus:write(0, 1, 0x7f)
    bus:read(1, 1)
    assert.equal(0x59, bus:read(1, 1))
  end)

  it("is another region", function()
    refused("bank: there is no other region cmso", { A = { at = 0, bank = "cmso", index = "A" } })
  end)
end)

describe("an array", function()
  it("takes a list or string of reset values that is not longer than itself", function()
    refused("R: reset: 3 values, and the register has 2 elements",
      { R = { at = 0, count = 2, reset = { 1, 2, 3 } } })
    refused("R: reset: 2 values, and the register has 1 element", { R = { at = 0, reset = "ab" } })
  end)
end)

describe("a register that is not on the bus", function()
  it("is the author's, and in the dump and state", function()
    local dev = make { registers = { HIDDEN = { at = false, fields = { x = 0 } }, A = { at = 0 } } }
    dev.HIDDEN.x = 1
    assert.equal("d\n  0000 A          00000000\n*    - HIDDEN     00000001  x=1", tostring(dev))
    assert.equal(1, dev:save().registers.HIDDEN)
  end)
end)
