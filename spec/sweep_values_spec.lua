-- SPDX-License-Identifier: MIT
-- The values of luna sweep's --set, the units that they make, and the words that units are handed
-- over as.

local helper = require "spec.support.helper"
local plan = require "lunavisor.sweep.plan"
local values = require "lunavisor.sweep.values"

local function list(text)
  return table.concat(assert(values.list(text)), " ")
end

local function refused(message, text)
  local found, problem = values.list(text)
  assert.is_nil(found)
  helper.contains(message, problem)
end

helper.block("the values of a parameter", function()
  it("are names and numbers", function()
    assert.equal("1 2 4", list "1,2,4")
    assert.equal("real", list "real")
    assert.same({ "" }, values.list "")
    assert.same({ "a b", "../x", "a..b", "-", "1.." }, values.list "a b,../x,a..b,-,1..")
  end)

  it("are ranges", function()
    assert.equal("1 2 3 4", list "1..4")
    assert.equal("4 3 2", list "4..2")
    assert.equal("1 5 9", list "1..12:4")
    assert.equal("12 8 4 0 -4", list "12..-4:-4")
    assert.equal("0 0.1 0.2 0.3", list "0..0.3:0.1")
    assert.equal("1 4 16 64", list "1..64*4")
    assert.equal("8 4 2 1", list "8..1*0.5")
    assert.equal("4096 8192", list "0x1000..0x2000*2")
    assert.equal("7", list "7..7")
    assert.equal("0 1 2 8 16 off", list "0,1..2,8..16*2,off")
  end)

  it("have characters without their meaning behind a backslash", function()
    assert.same({ "a,b", "1..2", "c\\d", "\\" }, values.list [[a\,b,1\..2,c\d,\\]])
  end)

  it("are refused where they make no sense", function()
    refused("1..8:-1: it never gets there", "1..8:-1")
    refused("1..8:0: it never gets there", "1..8:0")
    refused("0..8*2: it never gets there", "0..8*2")
    refused("1..8*1: it never gets there", "1..8*1")
    refused("1..-8*2: it never gets there", "1..-8*2")
    refused("1..8*0.5: it never gets there", "1..8*0.5")
    refused("1..8:x: a number expected behind the :", "1..8:x")
    refused("2 is there twice", "1..3,2")
    refused("more than 1000000 values", "1..1000001")
    refused("more than 1000000 values", "1..1e15")
    assert.same({ nil, "name=values expected, got 7" }, { values.parse "7" })
    assert.same({ nil, "name=values expected, got a-b=1" }, { values.parse "a-b=1" })
  end)
end)

helper.block("a sweep", function()
  local script
  before_each(function() script = helper.file "return {}" end)

  local function new(set, ...) return assert(plan.new(script, set, ...)) end

  local function wrong(message, ...)
    local made, problem = plan.new(script, ...)
    assert.is_nil(made)
    helper.contains(message, problem)
  end

  it("has a unit for each combination, the last parameter changing fastest", function()
    local made, words = new({ "size=1..2", "mode=real,long" }, "7..8"), {}
    for unit = 1, made.count do words[unit] = made:words(unit) end
    assert.equal("size=1, mode=real, seed=7; size=1, mode=real, seed=8; "
      .. "size=1, mode=long, seed=7; size=1, mode=long, seed=8; size=2, mode=real, seed=7; "
      .. "size=2, mode=real, seed=8; size=2, mode=long, seed=7; size=2, mode=long, seed=8",
      table.concat(words, "; "))
    assert.same({ size = 1, mode = "long", seed = 7 }, made:arguments(3))
    assert.equal(1, new({}).count)
  end)

  it("hands a unit over as one word, whatever its values are", function()
    local hostile = { "a b", "$HOME", "`id`", "it's", '"', "{}", "{=1=}", "%41", "-x", "a\nb", "",
      "a\\,b", "*", "~", "a=b", "\\\\", "\195\164", "!x", "#", "&", ";", "\r\t" }
    for i, value in ipairs(hostile) do
      local made = new({ "v=" .. value }, "5", { value, "--" }, "soft")
      local word = made:word(1)
      assert.matches("^[%w_./=,%%-]+$", word)
      local unit = assert(plan.read_word(word), i)
      local meant = value == "a\\,b" and "a,b" or value == "\\\\" and "\\" or value
      assert.same({ "v=" .. meant }, unit.set)
      assert.same({ value, "--" }, unit.rest)
      assert.same({ 1, script, plan.sum "return {}", "soft", "5" },
        { unit.unit, unit.script, unit.sum, unit.accel, unit.seed })
      assert.equal(meant, (helper.sh(("set -- %s; printf '%%s.' \"${2#v=}\"")
        :format(new({ "v=" .. value }):shell(1))):gsub("%.$", "")))
    end
    assert.is_nil(plan.read_word "nonsense")
  end)

  it("tells scripts apart", function()
    assert.are_not.equal(plan.sum "a", plan.sum "b")
    assert.are_not.equal(plan.sum "ab", plan.sum "ba")
    assert.are_not.equal(plan.sum "", plan.sum "\0")
    assert.matches("^%d+$", plan.sum(("\255"):rep(10000)))
  end)

  it("is refused with the reason", function()
    wrong("--set: size is there twice", { "size=1", "size=2" })
    wrong("--set: status is the name of a column", { "status=1" })
    wrong("--set: seed: --seeds says them", { "seed=1" })
    wrong("--set: x: 1..2:-1: it never gets there", { "x=1..2:-1" })
    wrong("--seeds: whole numbers expected, got a", {}, "a")
    wrong("--seeds: 1 is there twice", {}, "1,1")
    wrong("more than 1000000 units", { "a=1..1000", "b=1..1001" })
    local made, problem = plan.new("/no/where.lua", {})
    assert.is_nil(made)
    helper.contains("/no/where.lua", problem)
  end)
end)
