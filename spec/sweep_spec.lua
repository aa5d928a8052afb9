-- SPDX-License-Identifier: MIT
-- luna sweep: all units of a script run by GNU parallel, the table of what came out, and what is
-- refused. spec/sweep_kill_spec.lua has what is cut off.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local sweep = require "spec.support.sweep"
local contains = helper.contains

local place
local function begin() place = sweep.place() end

-- A block of tests that run units.
local function running(name, body)
  helper.block(name, function()
    if not sweep.parallel then
      pending(sweep.reason)
      return
    end
    before_each(begin)
    body()
  end)
end

running("luna sweep", function()
  it("runs each unit once, and makes a table of them in their order", function()
    local said = place:sweep(0, "luna: 12 of 12 units, 0 failed: unit.sweep/results.csv",
      "unit.lua --set n=1..6 --set word=a,b --jobs 3")
    assert.equal(1, select(2, (said .. "\n"):gsub("\n", "")))
    local rows, head = place:rows()
    assert.equal("unit n word status seconds double list random word_result error",
      table.concat(head, " "):gsub("first ", ""))
    assert.equal("1 2 3 4 5 6 7 8 9 10 11 12", place:column "unit")
    assert.equal("1 1 2 2 3 3 4 4 5 5 6 6", place:column "n")
    assert.equal("a b a b a b a b a b a b", place:column "word")
    assert.equal("2 2 4 4 6 6 8 8 10 10 12 12", place:column "double")
    assert.equal("[1, 2]", rows[1].list)
    assert.equal("0", rows[1].status)
    assert.equal("b", rows[2].word_result)
    assert.equal(12, select(2, place:read "ran":gsub("\n", "")))
  end)

  it("has nothing to do where all is done", function()
    place:sweep(0, "2 of 2", "unit.lua --set n=1,2")
    os.remove(place.path .. "/unit.sweep/results.csv")
    place:sweep(0, "2 of 2", "unit.lua --set n=1,2 --plot double")
    assert.equal("1 2", place:column "n")
    assert.equal("1\n2\n", (place:read "ran":gsub("2\n1\n", "1\n2\n")))
    contains("<svg", place:read "unit.sweep/double.svg")
  end)

  it("brings values through all shells as they are", function()
    place:write("words.lua", [[
      local hex = require("lunavisor").arguments.v:gsub(".", function(c)
        return ("%02x"):format(c:byte())
      end)
      return { hex = hex, all = require("lunavisor").arguments.v, first = ... }]])
    local hostile = { "a b", "$HOME", "`id`", "it's", '"', "{}", "{1}", "{=1=}", "%41", "-x",
      "a\nb", "*", "~", "a=b", "\\", "\195\164", "!x", "#", "&", ";", "\r\t", "--", "a,b", "x|y",
      ">f", "(", "", "\30{}" }
    local values, hexes = {}, {}
    for i, value in ipairs(hostile) do
      values[i] = value:gsub("[,\\]", "\\%0")
      hexes[i] = value:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    end
    files.write(place.path .. "/values", "v=" .. table.concat(values, ","))
    place:sweep(0, "28 of 28", [[words.lua --set "$(cat values)" --jobs 3 -- "it's \$HOME {}"]])
    local rows = place:rows "words.sweep/results.csv"
    for i, row in ipairs(rows) do
      assert.equal(hexes[i], row.hex)
      assert.equal(hostile[i], row.v)
      assert.equal(hostile[i], row.all)
      assert.equal("it's $HOME {}", row.first)
    end
    assert.equal(#hostile, #rows)
  end)

  it("tells of units that fail, and runs them again when told to", function()
    place:write("bad", "")
    place:sweep(1, "6 of 6 units, 2 failed: unit.sweep/results.csv; --retry runs those again",
      "unit.lua --set n=1..6")
    local rows = place:rows()
    assert.equal("0 0 1 0 7 0", place:column "status")
    assert.matches("no threes$", rows[3].error)
    assert.equal("the script called os.exit(7)", rows[5].error)
    assert.equal("", rows[5].double)
    contains("unit 3 (n=3) has failed", place:read "unit.sweep/log")
    os.remove(place.path .. "/bad")
    place:sweep(1, "2 failed", "unit.lua --set n=1..6")
    assert.equal(6, select(2, place:read "ran":gsub("\n", "")))
    place:sweep(0, "6 of 6 units, 0 failed", "unit.lua --set n=1..6 --retry")
    assert.equal("0 0 0 0 0 0", place:column "status")
    assert.equal("2 4 6 8 10 12", place:column "double")
    assert.equal(8, select(2, place:read "ran":gsub("\n", "")))
  end)

  it("gives seeds as luna run does, and the script's arguments", function()
    place:sweep(0, "3 of 3", "unit.lua --seeds 7..9 -- 'x y'")
    local rows = place:rows()
    assert.equal("7 8 9", place:column "seed")
    assert.equal("x y", rows[1].first)
    local alone = place:sh "$luna run --seed 8 --json unit.lua"
    assert.equal(alone:match '"random": (%d+)', rows[2].random)
    assert.are_not.equal(rows[1].random, rows[2].random)
  end)

  it("keeps integers whole", function()
    place:write("big.lua", [[
      local luna = require "lunavisor"
      return { big = luna.u64(0x12345678, 0x9abcdef1), less = -2 ^ 40, part = 0.1 + 0.2 }]])
    place:sweep(0, "1 of 1", "big.lua --set x=1")
    local row = place:rows "big.sweep/results.csv"[1]
    assert.equal("1311768467463790321", row.big)
    assert.equal("-1099511627776", row.less)
    assert.equal("0.3", row.part)
  end)

  it("ends a unit whose time is up, and runs that again the next time", function()
    place:write("stays.lua", [[
      if require("lunavisor").arguments.n == 2 and not io.open "quick" then
        os.execute "sleep 60"
      end
      return { n = 1 }]])
    place:sweep(1, "3 of 3 units, 1 failed", "stays.lua --set n=1..3 --jobs 3 --timeout 2")
    assert.equal("0 124 0", place:column("status", "stays.sweep/results.csv"))
    assert.equal("not done within 2 s", place:rows "stays.sweep/results.csv"[2].error)
    place:write("quick", "")
    place:sweep(0, "3 of 3 units, 0 failed", "stays.lua --set n=1..3 --timeout 120")
    assert.equal("0 0 0", place:column("status", "stays.sweep/results.csv"))
  end)

  it("says where parallel cannot work", function()
    place:sweep(1, "luna: parallel has ended before all was done (status ",
      "unit.lua --set n=1,2", "TMPDIR=/no/where")
    contains("/no/where", place:read "unit.sweep/log")
    place:sweep(0, "2 of 2", "unit.lua --set n=1,2")
  end)

  it("has its directory where it is told to", function()
    place:sweep(0, "./-a b/{}'s/results.csv", [[unit.lua --set n=1 --output "./-a b/{}'s"]])
    assert.equal("2", place:column("double", "-a b/{}'s/results.csv"))
    place:sweep(126, "--output: unit.lua/x cannot be made",
      "unit.lua --set n=1 --output unit.lua/x")
    helper.sh(("mkdir %s/full; touch %s/full/file"):format(place.path, place.path))
    place:sweep(126, "--output: full is not empty, and not the directory of a sweep",
      "unit.lua --set n=1 --output full")
    -- One that was cut off while it was begun.
    helper.sh(("mkdir %s/half; touch %s/half/script.lua.new"):format(place.path, place.path))
    place:sweep(0, "1 of 1", "unit.lua --set n=1 --output half")
  end)

  it("refuses to go on with another sweep, and says what differs", function()
    local function differs(text, words)
      place:sweep(126, "luna: unit.sweep has another sweep: " .. text, words)
    end
    place:sweep(0, "2 of 2", "unit.lua --set n=1,2 --set word=a")
    local before = place:read "unit.sweep/results.csv"
    differs("n was 1,2 and is 1,2,3; word is gone; more is new\n--again drops it, --output",
      "unit.lua --set n=1..3 --set more=1")
    differs("the order of the parameters has changed", "unit.lua --set word=a --set n=1,2")
    differs("the script's arguments have changed", "unit.lua --set n=1,2 --set word=a -- x")
    differs("--accel was not said and is soft", "unit.lua --set n=1,2 --set word=a --accel soft")
    files.write(place.path .. "/unit.lua", "return { other = 1 }")
    differs("the script has changed", "unit.lua --set n=1,2 --set word=a")
    assert.equal(before, place:read "unit.sweep/results.csv")
    place:sweep(0, "2 of 2", "unit.lua --set n=1,2 --set word=a --again")
    assert.equal("1 1", place:column "other")
    place:sweep(0, "3 of 3", "unit.lua --set n=1..3 --again")
    assert.equal("1 2 3", place:column "n")
  end)

  it("takes the lines of units that ran elsewhere", function()
    local words = "unit.lua --set n=1..3 --set word=a,b"
    assert.equal("", (place:sh(("for i in 1 2 4 5 6; do $luna sweep %s --unit $i; done >lines")
      :format(words))))
    place:sweep(1, "luna: 5 lines taken\nluna: 5 of 6 units, 0 failed", words .. " --take lines")
    assert.equal("1 2 4 5 6", place:column "unit")
    place:sweep(126, "--take: lines: unit 1 has n=1, and 7 is expected",
      "unit.lua --set n=7..9 --set word=a,b --take lines --output other")
    place:sweep(126, "--take: lines: unit 6, and there are 1", "unit.lua --set n=1 --take lines "
      .. "--output one", "tail -n 1 lines >last; mv last lines;")
    place:sweep(126, "--take: none", words .. " --take none")
    place:sweep(0, "luna: 1 lines taken\nluna: 6 of 6 units", words .. " --take -",
      ("$luna sweep %s --unit 3 |"):format(words))
    assert.equal("1 2 3 4 5 6", place:column "unit")
    assert.equal("2 2 4 4 6 6", place:column "double")
  end)

  it("keeps of several lines of a unit what was well", function()
    place:write("bad", "")
    place:sh "$luna sweep unit.lua --set n=3 --unit 1 >failed"
    os.remove(place.path .. "/bad")
    place:sh "$luna sweep unit.lua --set n=3 --unit 1 >well"
    place:sweep(0, "1 of 1 units, 0 failed", "unit.lua --set n=3 --take -", "cat well failed |")
    place:sweep(0, "1 of 1 units, 0 failed", "unit.lua --set n=3 --take -", "cat failed well |")
    place:sweep(1, "1 of 1 units, 1 failed", "unit.lua --set n=3 --take failed --again")
    place:sweep(126, "--take: half: no line of a unit", "unit.lua --set n=3 --take half",
      [[printf '{"arguments": {"n": 3}}\n' >half;]])
  end)

  it("takes results of any shape", function()
    place:write("shapes.lua", [[
      local n = require("lunavisor").arguments.n
      if n == 1 then return { 7, 8 } end
      if n == 2 then return "text" end
      if n == 3 then return end
      return { [1] = 9, yes = true, no = false, ["a,b"] = 'x"y', status = 5 }]])
    place:sweep(0, "4 of 4", "shapes.lua --set n=1..4 --plot 1")
    assert.same({ "unit", "n", "status", "seconds", "1", "2", "a,b", "no", "status_result", "yes",
      "error" }, (select(2, place:rows "shapes.sweep/results.csv")))
    local rows = place:rows "shapes.sweep/results.csv"
    assert.equal("7", rows[1]["1"])
    assert.equal("", rows[2]["1"])
    assert.same({ 'x"y', "false", "true", "5", "0" }, { rows[4]["a,b"], rows[4].no, rows[4].yes,
      rows[4].status_result, rows[4].status })
  end)

  it("gives a unit's line the same way alone and in the sweep", function()
    place:sweep(0, "4 of 4", "unit.lua --set n=1,2 --set word=a,b --seeds 3")
    local output = place:read "unit.sweep/output"
    local function line(text)
      return text:match '{"arguments.-}\n':gsub('"seconds": [%d.e-]+', '"seconds": 0')
    end
    for unit = 1, 4 do
      local alone = place:sh(("$luna sweep unit.lua --set n=1,2 --set word=a,b --seeds 3 "
        .. "--unit %d"):format(unit))
      local there
      for one in output:gmatch "\30[^\n]*\n" do
        if one:find(('"unit": %d}'):format(unit), 1, true) then there = one end
      end
      assert.equal(line(there), line(alone .. "\n"))
    end
  end)

  it("does what the examples of its help say", function()
    for _, name in ipairs { "unit.lua", "walk.lua" } do
      place:write(name, "return { pages = require('lunavisor').arguments.size / 4 }")
    end
    local count = 0
    for example in place:sh("$luna sweep --help"):gmatch "\n  luna sweep ([^\n]+)" do
      place:sweep(0, "", example)
      count = count + 1
    end
    assert.equal(4, count)
    contains("|size|", "|" .. place:read("walk.sweep/pages.svg"):gsub("<[^>]*>", "|"))
  end)

  it("shows how far it is on a terminal alone", function()
    if select(2, helper.sh "command -v script") ~= 0 then pending "script is not installed" end
    local output = place:sh [[script -qec "$luna sweep slow.lua --set n=1..6 --jobs 2" /dev/null]]
    assert.matches("\rluna: [1-5] of 6 units, %d+ s to go\27%[K", output)
    assert.matches("\r\27%[Kluna: 6 of 6 units, 0 failed", output)
    assert.is_nil(place:sweep(0, "6 of 6", "unit.lua --set n=1..6"):find "\27")
  end)
end)

helper.block("luna sweep, without parallel,", function()
  before_each(begin)

  it("says how to get it", function()
    local path = [[mkdir bin; for f in sh mkdir ls cat %s; do ln -s "$(command -v $f)" bin/; done;]]
    local engine = helper.engine
    local before = path:format(engine)
      .. ("export LUNA_LUA=$(command -v %s) PATH=$PWD/bin;"):format(engine)
    local said = "luna: there is no GNU parallel here (Debian: apt-get install parallel)"
    place:sweep(126, said, "unit.lua --set n=1", before)
    -- Another program of that name is none.
    place:sweep(126, said, "unit.lua --set n=1", "printf '#!/bin/sh\\necho parallel\\n' >"
      .. "other; chmod +x other; mkdir more; mv other more/parallel; PATH=$PWD/more:$PATH")
  end)

  it("lists units as luna run has them, and runs one", function()
    assert.equal("1\t--accel soft --set n=1 --set 'word=a b' --seed 5 unit.lua x\n"
      .. "2\t--accel soft --set n=2 --set 'word=a b' --seed 5 unit.lua x", (place:sweep(0, "",
      "unit.lua --accel soft --set n=1,2 --set 'word=a b' --seeds 5 --list -- x")))
    assert.is_nil(place:read "unit.sweep/sweep.json")
    local alone = place:sh "$luna sweep unit.lua --set n=3..5 --unit 2"
    contains('some text\n{"arguments": {"n": 4}, "results": {"double": 8, ', alone)
    contains('"status": 0, "unit": 2}', alone)
    place:write("bad", "")
    contains('no threes", ', place:sweep(1, '{"arguments": {"n": 3}, "error": "',
      "unit.lua --set n=3 --unit 1"))
    place:sweep(7, '"status": 7', "unit.lua --set n=5 --unit 1")
  end)

  it("refuses what makes no sense", function()
    place:sweep(126, "luna: --set: name=values expected, got 7", "unit.lua --set 7")
    place:sweep(126, "luna: --set: x: 1..2:-1: it never gets there", "unit.lua --set x=1..2:-1")
    place:sweep(126, "luna: --jobs: a whole number from 1 expected, got 0", "unit.lua --jobs 0")
    place:sweep(126, "luna: --timeout: seconds above 0 expected, got x", "unit.lua --timeout x")
    place:sweep(126, "luna: --unit: 3, and there are 2", "unit.lua --set n=1,2 --unit 3")
    place:sweep(126, "luna: --unit: a whole number from 1", "unit.lua --set n=1,2 --unit x")
    place:sweep(126, "luna: --label: NAME=TEXT expected, got x", "unit.lua --set n=1 --label x")
    place:sweep(126, "luna: --over needs --plot", "unit.lua --set n=1 --over n")
    place:sweep(126, "luna: cannot open none.lua", "none.lua")
    place:sweep(126, "each unit reads the script", "- --set n=1")
    place:sweep(126, "luna: missing argument 'script'", "--set n=1")
    place:sweep(126, "luna: unknown option '--sets'", "unit.lua --sets n=1")
    place:write("wrong.lua", "x x")
    place:sweep(126, "luna: wrong.lua:1:", "wrong.lua --set n=1")
  end)
end)
