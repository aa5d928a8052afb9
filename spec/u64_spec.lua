-- SPDX-License-Identifier: MIT
-- Unsigned 64-bit integers: the results are the same on both engines, and so are the refusals.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64, raises = luna.u64, helper.raises
local key = u64.key

describe("u64", function()
  it("is made from whole numbers", function()
    for _, case in ipairs {
      { 0, "0000000000000000" }, { 1, "0000000000000001" }, { 2 ^ 32, "0000000100000000" },
      { 2 ^ 53, "0020000000000000" }, { -1, "ffffffffffffffff" }, { -2 ^ 53, "ffe0000000000000" },
    } do
      assert.equal(case[2], key(u64(case[1])))
      assert.equal(case[2], key(u64(u64(case[1]))))
    end
  end)

  it("is made from hexadecimal text", function()
    for _, case in ipairs {
      { "0x0", "0000000000000000" }, { "0xffffffffffffffff", "ffffffffffffffff" },
      { "0x8000000000000000", "8000000000000000" }, { "0X1F", "000000000000001f" },
      { "0xDeadBeefCafeBabe", "deadbeefcafebabe" }, { "0x100000000", "0000000100000000" },
      { "0x20000000000001", "0020000000000001" }, { "0x0000000000000005", "0000000000000005" },
    } do
      assert.equal(case[2], key(u64(case[1])))
    end
  end)

  it("is made from two halves", function()
    assert.equal("deadbeefcafebabe", key(u64(0xdeadbeef, 0xcafebabe)))
    assert.equal("ffffffff00000000", key(u64(0xffffffff, 0)))
    assert.equal("00000000ffffffff", key(u64(0, 0xffffffff)))
    raises("", function() u64(0, 2 ^ 32) end)
    raises("", function() u64(2 ^ 32, 0) end)
    raises("", function() u64(0, -1) end)
  end)

  it("refuses what is no exact 64-bit integer", function()
    local text = " is not an exact 64-bit integer (write large ones as u64 \"0x...\")"
    raises("1.5" .. text, function() u64(1.5) end)
    raises("1e+300" .. text, function() u64(1e300) end)
    raises("inf" .. text, function() u64(math.huge) end)
    raises("nan" .. text, function() u64(0 / 0) end)
    raises("nil" .. text, function() u64(nil) end)
    raises(text, function() u64 {} end)
    raises("true" .. text, function() u64(true) end)
  end)

  it("refuses numbers that may have been rounded, on both engines", function()
    raises("is not an exact 64-bit integer", function() u64(2 ^ 60) end)
    raises("is not an exact 64-bit integer", function() u64(2 ^ 63) end)
    raises("is not an exact 64-bit integer", function() u64(2 ^ 64) end)
    raises("is not an exact 64-bit integer", function() u64(-2 ^ 60) end)
  end)

  it("refuses text that is no number of up to 16 digits", function()
    for _, text in ipairs { "", "0x", "12", "1f", "0x1g", "0x 1", " 0x1", "-0x1", "0x1.8",
      "0x00000000000000001" } do
      raises(("%q is not a hexadecimal number of up to 16 digits"):format(text),
        function() u64(text) end)
    end
  end)

  it("is equal to the number that it was made from", function()
    assert.is_true(u64(5) == u64 "0x5")
    assert.is_true(u64(5) == 5)
    assert.is_false(u64(5) == u64(6))
    assert.is_true(u64(-1) == u64 "0xffffffffffffffff")
  end)
end)

describe("text of u64", function()
  it("has no leading zeros as hex and all digits as key", function()
    for text, digits in pairs {
      ["0x0"] = "0000000000000000", ["0xf"] = "000000000000000f",
      ["0x100000000"] = "0000000100000000", ["0x8000000000000000"] = "8000000000000000",
      ["0xffffffffffffffff"] = "ffffffffffffffff", ["0x12345678"] = "0000000012345678",
    } do
      assert.equal(text, u64.hex(u64(text)))
      assert.equal(text, luna.hex(u64(text)))
      assert.equal(digits, key(u64(text)))
    end
    assert.equal("0x10", luna.hex(16))
  end)

  it("is ordered like the numbers as key", function()
    local sorted = { "0x0", "0x9", "0xa", "0x100000000", "0x7fffffffffffffff",
      "0x8000000000000000", "0xffffffffffffffff" }
    for i = 2, #sorted do assert.is_true(key(u64(sorted[i - 1])) < key(u64(sorted[i]))) end
  end)

  it("is refused of what is no integer", function()
    raises("0.5 is not an exact 64-bit integer", function() luna.hex(0.5) end)
    raises("0x10 is not an exact 64-bit integer", function() luna.hex "0x10" end)
    raises("nil is not an exact 64-bit integer", function() key(nil) end)
  end)
end)

describe("u64.tonumber", function()
  it("gives an ordinary number", function()
    for value, text in pairs { [0] = "0", [5] = "5", [2 ^ 32 - 1] = "4294967295",
      [2 ^ 52] = "4503599627370496" } do
      local number = u64.tonumber(u64(value))
      assert.equal("number", type(number))
      assert.equal(value, number)
      assert.equal(text, ("%d"):format(number))
    end
    assert.equal("5", tostring(u64.tonumber(u64(5))))
  end)

  it("refuses what would be rounded", function()
    raises("0x20000000000001 does not fit in an ordinary number exactly",
      function() u64.tonumber(u64 "0x20000000000001") end)
    raises("0xffffffffffffffff does not fit", function() u64.tonumber(u64(-1)) end)
    assert.equal(2 ^ 53 - 1, u64.tonumber(u64 "0x1fffffffffffff"))
    assert.equal(2 ^ 53, u64.tonumber(u64(2 ^ 53)))
  end)
end)

describe("arithmetic of u64", function()
  it("wraps", function()
    assert.equal("0000000000000000", key(u64(-1) + 1))
    assert.equal("ffffffffffffffff", key(u64(0) - 1))
    assert.equal("0000000000000004", key(u64(5) + u64(-1)))
    assert.equal("0020000000000001", key(u64(2 ^ 53) + 1))
    assert.equal("0000000000000001", key(u64(-1) * u64(-1)))
    assert.equal("fffffffe00000000", key(u64(2 ^ 32) * u64 "0xfffffffe"))
  end)

  -- a, b, a / b, a % b
  local divisions = {
    { "0x0", "0x1", "0x0", "0x0" },
    { "0x7", "0x2", "0x3", "0x1" },
    { "0xffffffffffffffff", "0x3", "0x5555555555555555", "0x0" },
    { "0xffffffffffffffff", "0xa", "0x1999999999999999", "0x5" },
    { "0xffffffffffffffff", "0x1", "0xffffffffffffffff", "0x0" },
    { "0xffffffffffffffff", "0xffffffffffffffff", "0x1", "0x0" },
    { "0xfffffffffffffffe", "0xffffffffffffffff", "0x0", "0xfffffffffffffffe" },
    { "0xffffffffffffffff", "0x8000000000000000", "0x1", "0x7fffffffffffffff" },
    { "0x8000000000000000", "0xffffffffffffffff", "0x0", "0x8000000000000000" },
    { "0x8000000000000000", "0x2", "0x4000000000000000", "0x0" },
    { "0x7fffffffffffffff", "0x8000000000000000", "0x0", "0x7fffffffffffffff" },
    { "0x20000000000001", "0x20000000000000", "0x1", "0x1" },
  }
  it("divides", function()
    for _, case in ipairs(divisions) do
      local a, b = u64(case[1]), u64(case[2])
      assert.equal(case[3], u64.hex(u64.div(a, b)))
      assert.equal(case[4], u64.hex(u64.mod(a, b)))
    end
    raises("division by zero", function() local _ = u64.div(1, 0) end)
    raises("division by zero", function() local _ = u64.mod(u64(-1), u64(0)) end)
    raises("0.5 is not an exact", function() local _ = u64.div(1, 0.5) end)
    raises("0.5 is not an exact", function() local _ = u64.mod(0.5, 1) end)
  end)

  it("compares without a sign", function()
    local sorted = { 0, 1, 2 ^ 53, u64 "0x7fffffffffffffff", u64 "0x8000000000000000", -1 }
    for i, a in ipairs(sorted) do
      for j, b in ipairs(sorted) do
        assert.equal(i < j, u64.lt(a, b))
        assert.equal(i <= j, u64.le(a, b))
      end
    end
    raises("1.5 is not an exact", function() local _ = u64.lt(1.5, 2) end)
    raises("x is not an exact", function() local _ = u64.le(1, "x") end)
  end)

  it("combines bits", function()
    local a, b = u64 "0xff00ff00ff00ff00", u64 "0xf0f0f0f0f0f0f0f0"
    assert.equal("0xf000f000f000f000", u64.hex(u64.band(a, b)))
    assert.equal("0xfff0fff0fff0fff0", u64.hex(u64.bor(a, b)))
    assert.equal("0xff00ff00ff00ff0", u64.hex(u64.bxor(a, b)))
    assert.equal("0xff00ff00ff00ff", u64.hex(u64.bnot(a)))
    assert.equal("0xffffffffffffffff", u64.hex(u64.bnot(0)))
    assert.equal("0x80000000", u64.hex(u64.band(0x80000000, 0xffffffff)))
    assert.equal("0xffffffff80000000", u64.hex(u64.bor(u64 "0xffffffff00000000", 0x80000000)))
    assert.equal("0xfffffffffffffff0", u64.hex(u64.band(-1, -16)))
    raises("1.5 is not an exact", function() local _ = u64.band(1, 1.5) end)
    raises("nil is not an exact", function() local _ = u64.bnot() end)
  end)

  it("shifts zeros in", function()
    local a = u64 "0x8000000000000001"
    assert.equal("0x2", u64.hex(u64.lshift(a, 1)))
    assert.equal("0x4000000000000000", u64.hex(u64.rshift(a, 1)))
    assert.equal("0x1", u64.hex(u64.rshift(a, 63)))
    assert.equal("0x8000000000000000", u64.hex(u64.lshift(a, 63)))
    assert.equal("0x8000000000000001", u64.hex(u64.rshift(a, 0)))
    assert.equal("0x100000000", u64.hex(u64.lshift(1, 32)))
    raises("a shift by 64: 0 to 63 expected", function() local _ = u64.lshift(1, 64) end)
    raises("a shift by -1: 0 to 63 expected", function() local _ = u64.rshift(1, -1) end)
    raises("a shift by 0.5: 0 to 63 expected", function() local _ = u64.rshift(1, 0.5) end)
    raises("a shift by nil: 0 to 63 expected", function() local _ = u64.rshift(1) end)
  end)

  it("gives the same once a loop is compiled", function()
    local x = u64 "0xfedcba9876543210"
    for _ = 1, 500 do
      local field = u64.band(u64.rshift(x, 30), 511)
      if u64.hex(field) ~= "0x61" or u64.tonumber(field) ~= 0x61
        or u64.rshift(field, 4) ~= u64(6) or u64.lshift(field, 4) ~= u64(0x610) then
        error("wrong: " .. u64.hex(field) .. ", " .. u64.hex(u64.rshift(field, 4)))
      end
    end
  end)

  it("gives nil for what is not exact, without an error", function()
    assert.equal("0x5", u64.hex(u64.exact(5)))
    for _, value in ipairs { 0.5, math.huge, "5", true, {} } do
      assert.is_nil(u64.exact(value))
    end
    assert.is_nil(u64.exact(nil))
  end)

  it("are right in compiled code too", function()
    local wrong = 0
    local function look(address)
      for level = 4, 2, -1 do
        local index = u64.tonumber(u64.band(u64.rshift(address, 12 + 9 * (level - 1)), 511))
        if index > 511 then wrong = wrong + 1 end
      end
    end
    local high = u64 "0xffffffff80000000"
    for _ = 1, 2000 do look(high) end
    assert.equal(0, wrong)
  end)
end)
