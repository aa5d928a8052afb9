-- SPDX-License-Identifier: MIT
-- A luna sweep that is cut off: killed, interrupted, a unit lost, a line half written. What was
-- done is not done again, and nothing is missing or there twice at the end.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local plan = require "lunavisor.sweep.plan"
local store = require "lunavisor.sweep.store"
local sweep = require "spec.support.sweep"

local COUNT = 12
local WORDS = "slow.lua --set n=1..12 --jobs 2"

local place

-- The units that have a whole line by now, by number.
local function done()
  local found = {}
  for unit in (place:read "slow.sweep/output" or ""):gmatch '\30[^\n]*"unit": (%d+)}\n' do
    found[tonumber(unit)] = true
  end
  return found
end

local function count(set)
  local number = 0
  for _ in pairs(set) do number = number + 1 end
  return number
end

-- Starts the sweep, waits for three units of it, does what `words` say with $pid, that of luna, and
-- waits for that. What luna says, and its status.
local function cut_off(words)
  return place:sh(([[$luna sweep %s >said 2>&1 & pid=$!
    until [ "$(grep -c unit slow.sweep/output 2>/dev/null || true)" -ge 3 ] 2>/dev/null; do
      kill -0 $pid || break; sleep 0.02
    done
    %s
    wait $pid; status=$?; cat said; exit $status]]):format(WORDS, words))
end

-- Goes on, and looks whether all is there, and whether what was done before was left alone.
local function goes_on()
  place:write("quick", "")
  -- Where luna was killed, what runs units needs a moment to see it.
  helper.within(function()
    return not place:sh("flock -n slow.sweep/lock true || echo no"):find "no"
  end)
  local before = done()
  assert.is_true(count(before) >= 3 and count(before) < COUNT, count(before) .. " units")
  place:sweep(0, "luna: 12 of 12 units, 0 failed: slow.sweep/results.csv", WORDS)
  local name = "slow.sweep/results.csv"
  assert.equal("1 2 3 4 5 6 7 8 9 10 11 12", place:column("unit", name))
  assert.equal("1 2 3 4 5 6 7 8 9 10 11 12", place:column("n_result", name))
  for unit in pairs(done()) do
    local lines = select(2, place:read "slow.sweep/output":gsub(('"unit": %d}\n'):format(unit), ""))
    assert.equal(1, lines, "lines of unit " .. unit)
  end
  local ran = select(2, place:read "slow.sweep/units":gsub("\n", ""))
  assert.equal(COUNT - count(before), ran)
end

helper.block("a luna sweep that is cut off", function()
  if not sweep.parallel or select(2, helper.sh "command -v flock") ~= 0 then
    pending(sweep.parallel and "flock (util-linux) is not installed" or sweep.reason)
    return
  end
  before_each(function() place = sweep.place() end)

  it("goes on behind the end of luna", function()
    local _, status = cut_off "kill -9 $pid"
    assert.equal(137, status)
    goes_on()
  end)

  it("goes on behind the end of parallel", function()
    local said, status = cut_off "pkill -9 -P $(cat slow.sweep/lock) parallel"
    assert.equal(1, status)
    helper.contains("luna: parallel has ended before all was done (it was killed): "
      .. "slow.sweep/log may tell\nluna: ", said)
    helper.contains("luna: to go on: luna sweep slow.lua --set n=1..12 --jobs 2", said)
    goes_on()
  end)

  it("goes on behind the end of everything", function()
    cut_off [[lock=$(cat slow.sweep/lock); kill -9 $pid $lock $(pgrep -P $lock)]]
    goes_on()
  end)

  it("ends at Ctrl-C, and says what to type", function()
    local said, status = cut_off "kill -INT $pid"
    assert.equal(130, status)
    helper.contains("luna: to go on: luna sweep slow.lua --set n=1..12 --jobs 2", said)
    assert.is_nil(said:find "traceback")
    assert.equal("", (place:sh "pgrep -P $(cat slow.sweep/lock)"))
    local before = place:column("unit", "slow.sweep/results.csv")
    assert.equal(count(done()), select(2, before:gsub("%d+", "")))
    goes_on()
  end)

  it("ends at Ctrl-C on a terminal", function()
    if select(2, helper.sh "command -v script") ~= 0 then pending "script is not installed" end
    -- Without a shell between: Ctrl-C is for that too, and which of them goes on is theirs.
    local said, status = place:sh(([[
      (until [ "$(grep -c unit slow.sweep/output)" -ge 3 ]; do sleep 0.05; done 2>/dev/null
       printf '\003'; sleep 2) | SHELL=/bin/sh script -qec "exec $luna sweep %s" /dev/null]])
      :format(WORDS))
    helper.contains("luna: to go on: luna sweep slow.lua", said)
    assert.equal(130, status)
    goes_on()
  end)

  it("ends with luna, soon", function()
    cut_off "kill -9 $pid"
    helper.within(function()
      return place:sh [[flock -n slow.sweep/lock true && echo free]] == "free"
    end)
    local before = count(done())
    helper.sh "sleep 0.5"
    assert.equal(before, count(done()))
    assert.is_true(before < COUNT)
  end)

  it("is not run twice at a time", function()
    place:write("slow.lua", (place:read "slow.lua":gsub("0%.25", "0.6")))
    local said = cut_off(([[$luna sweep %s; echo "second $?"
      $luna sweep %s --again; echo "third $?"; kill -INT $pid]]):format(WORDS, WORDS))
    local busy = "luna: the units of slow.sweep are being run, by process %d+\n"
    assert.matches("^" .. busy .. "second 126\n" .. busy .. "third 126\n", said)
    goes_on()
  end)

  it("runs a unit again that was killed", function()
    place:write("slow.lua", [[
      local n = require("lunavisor").arguments.n
      if (n == 4 or n == 9) and not io.open("dead" .. n) then
        io.open("dead" .. n, "w"):close()
        io.popen(n == 4 and "kill -9 $PPID" or "kill -INT $PPID"):close()
      end
      return { n = n }]])
    place:sweep(1, "luna: 12 of 12 units, 2 failed: slow.sweep/results.csv\nluna: to go on: ",
      WORDS)
    local rows = place:rows "slow.sweep/results.csv"
    assert.same({ "137", "killed by SIGKILL" }, { rows[4].status, rows[4].error })
    assert.same({ "130", "killed by SIGINT" }, { rows[9].status, rows[9].error })
    goes_on()
    assert.equal("", place:rows "slow.sweep/results.csv"[4].error)
  end)

  it("takes no line that is half written", function()
    place:write("slow.lua", "return { n = require('lunavisor').arguments.n }")
    place:sweep(0, "12 of 12", WORDS)
    local whole = place:read "slow.sweep/output"
    files.write(place.path .. "/slow.sweep/output", whole:sub(1, -40))
    place:sweep(0, "luna: 12 of 12 units, 0 failed", WORDS)
    assert.equal("1 2 3 4 5 6 7 8 9 10 11 12", place:column("n_result", "slow.sweep/results.csv"))
    assert.equal(1, select(2, place:read "slow.sweep/units":gsub("\n", "")))
  end)

  it("begins anew where it was cut off while it began", function()
    place:write("slow.lua", "return { n = require('lunavisor').arguments.n }")
    place:sweep(0, "12 of 12", WORDS)
    os.remove(place.path .. "/slow.sweep/sweep.json")
    place:sweep(0, "12 of 12", WORDS)
    assert.equal(COUNT, select(2, place:read "slow.sweep/units":gsub("\n", "")))
  end)
end)

helper.block("what a sweep reads back", function()
  before_each(function() place = sweep.place() end)

  -- Blocks as parallel writes them: what the script has printed, then the line.
  local function block(n)
    return ('some {"text": %d}\n\30{"arguments": {"n": %d}, "results": {"n": %d}, "status": 0, '
      .. '"unit": %d}\n'):format(n, n, n, n)
  end

  local function open()
    local made = assert(plan.new(place.path .. "/slow.lua", { "n=1..4" }))
    return assert(store.open(place.path .. "/dir", made))
  end

  local function units(opened)
    local list = {}
    for unit = 1, 4 do list[#list + 1] = opened.lines[unit] and unit end
    return table.concat(list, " ")
  end

  it("is whole lines, wherever the last one was cut off", function()
    open()
    local first, last = block(1) .. block(2), block(3)
    for at = 0, #last do
      files.write(place.path .. "/dir/output", first .. last:sub(1, at))
      local opened = open()
      assert.equal(at == #last and "1 2 3" or "1 2", units(opened), "cut at " .. at)
      -- What comes behind it, at once or piece by piece.
      local file = assert(io.open(place.path .. "/dir/output", "ab"))
      for piece in (block(4) .. block(3)):gmatch "..?.?.?.?.?.?.?.?.?.?.?.?" do
        file:write(piece)
        file:flush()
        opened:read()
      end
      file:close()
      assert.equal("1 2 3 4", units(opened), "cut at " .. at)
      assert.equal("1 2 3 4", units(open()), "cut at " .. at)
    end
  end)

  it("is of this sweep alone", function()
    local opened = open()
    local wrong = { (block(5)), "\30[1]\n", "\30{}\n", "\0301\n", "\30\n",
      "\30" .. ("["):rep(1000) .. "\n" }
    for from, to in pairs { ["\30"] = "", ['"n": 1}, "r'] = '"n": 2}, "r',
      ['"status": 0'] = '"status": "0"', ['"unit": 1'] = '"unit": 1.5',
      ['{"n": 1}, "r'] = '7, "r' } do
      local text, changed = block(1):gsub(from, to)
      assert.equal(1, changed)
      wrong[#wrong + 1] = text
    end
    for i = 1, #wrong do
      assert(opened:append(wrong[i]))
      opened:read()
      assert.equal("", units(opened), i)
    end
    assert.same({ 1, 2, 3, 4 }, opened:missing())
  end)
end)
