-- SPDX-License-Identifier: MIT
-- What scripts/test makes of tests that fail, die, hang or are not there, on a small tree.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local write_file = require("spec.support.files").write

local tree

local function write(path, text)
  helper.sh(("mkdir -p %s/%s"):format(tree, path:match "^(.*)/"))
  write_file(tree .. "/" .. path, text)
end

-- A C test that is a script.
local function program(name, body)
  write("spec/core/" .. name .. ".c", "")
  write("build/spec/" .. name, "#!/bin/sh\n" .. body .. "\n")
  helper.sh(("chmod +x %s/build/spec/%s"):format(tree, name))
end

-- Runs steps of scripts/test behind words of the shell: the lines that it printed, the last one
-- apart, and its exit status. An accelerator that is asked for is not looked for, and the specs of
-- the tree use none.
local function test(steps, setting)
  local output, status = helper.sh(([[cd %s && unset LUNA_GC_STRESS LUNA_ACCEL MAKEFLAGS LUNA_SEED
    [ '%s' = soft ] || export LUNA_ACCEL=kvm
    %s BUILD=build LUA=%q LUNA_SUITE_SECONDS=3 scripts/test %s]])
    :format(tree, steps, setting or "", helper.engine, steps))
  local lines, last = output:match "^(.-)\n?([^\n]*)$"
  return lines, last, status
end

describe("scripts/test", function()
  before_each(function()
    tree = (helper.sh "mktemp -d")
    helper.sh(("cd %s && mkdir -p scripts spec/support"):format(tree))
    helper.sh(("cp scripts/test %s/scripts && cp spec/support/counts.lua %s/spec/support")
      :format(tree, tree))
  end)

  after_each(function() helper.sh("rm -rf " .. tree) end)

  it("adds up what the parts count", function()
    write("spec/a_spec.lua", 'it("passes", function() end)\nit("passes too", function() end)')
    write("spec/b_spec.lua", 'it("is left out", function() pending "of a reason" end)')
    local lines, last, status = test "lua"
    helper.contains("SKIP spec/b_spec.lua:1: is left out: ", lines)
    assert.matches("ok   [^\n]* 1/2 +2 passed, 0 failed, 0 skipped, %d+ s", lines)
    assert.equal("2 passed, 0 failed, 1 skipped", last)
    assert.equal(0, status)
  end)

  it("shows a failure and goes on", function()
    write("spec/a_spec.lua", [[
      it("fails", function() error("first\nsecond", 0) end)
      it("passes", function() end)]])
    local lines, last, status = test "lua"
    assert.matches(" 1/1: FAIL spec/a_spec.lua:1: fails: [^\n]*first\nsecond\n", lines)
    assert.matches("\nFAIL [^\n]* 1/1 +1 passed, 1 failed, 0 skipped, %d+ s", lines)
    assert.equal("1 passed, 1 failed, 0 skipped", last)
    assert.equal(1, status)
  end)

  it("gives the tests an environment of its own, whoever runs them", function()
    write("spec/a_spec.lua", [==[it("tells", function()
      os.execute [[umask; env | sort | grep -vE "^(HOME|TMPDIR|CCACHE_DIR|PATH|PWD|_|LUNA[A-Z_]*)="
        ls -a "$HOME"; mktemp -d | xargs rmdir -v]]
      error "as it is" end)]==])
    local function told(setting)
      local lines = test("lua", setting)
      return (lines:match "(0%d%d%d\n.*)\n[^\n]*FAIL spec":gsub("/tmp%.%w+", "/tmp.X"))
    end
    local usual = told ""
    for _, text in ipairs { "0022\n", "SHELL=/bin/sh\n", "TZ=UTC\n", "LC_ALL=C.UTF-8\n",
      "TERM=dumb\n", "\n.\n..\nrmdir: removing directory, '/tmp/tmp.X'" } do
      helper.contains(text, usual)
    end
    assert.equal(usual, told(([[umask 077; export HOME=/nowhere SHELL=/bin/false TERM=xterm
      LANG=de_DE LC_ALL=C TZ=Asia/Tokyo CDPATH=/tmp
      POSIXLY_CORRECT=1 NO_COLOR=1 XDG_STATE_HOME=/nowhere
      LUA_INIT='x(' LUA_PATH_5_4=';' TMPDIR='/no where' BASH_ENV=/nowhere;]])
      :gsub("\n", " ")))
  end)

  it("gives random tests the same seed in each run, or the one that is asked for", function()
    program("base/test_any", [[echo "not ok any: [$LUNA_SEED]"
      echo '0 passed, 1 failed, 0 skipped']])
    write("spec/a_spec.lua", [==[it("tells", function()
      error("[" .. os.getenv "LUNA_SEED" .. "]") end)]==])
    local function seed(setting)
      local lines, _, status = test("core lua", setting)
      assert.equal(1, status)
      local first, second = lines:match "%[(%d+)%].*%[(%d+)%]"
      assert.equal(first, second, lines)
      return first, lines:match "^LUNA_SEED=(%d+) is from the clock\n"
    end
    local usual, drawn = seed ""
    assert.is_nil(drawn)
    assert.equal(usual, (seed ""))
    assert.same({ "77" }, { seed "LUNA_SEED=77" })
    for _, setting in ipairs { "LUNA_SEED=", "LUNA_SEED=clock" } do
      local first, told = seed(setting)
      assert.equal(first, told, "what was drawn is not what was told")
      assert.are_not.equal(usual, first)
      assert.are_not.equal(first, (seed(setting)))
    end
    local _, last, status = test("lua", "LUNA_SEED=7x")
    assert.equal("scripts/test: LUNA_SEED is '7x': a number expected, or 'clock'", last)
    assert.equal(2, status)
  end)

  it("gives it to libFuzzer too, which draws from the clock by hand", function()
    helper.sh(("cp scripts/fuzz %s/scripts"):format(tree))
    write("spec/fuzz/fuzz_any.c", "")
    write("build/fuzz/fuzz/fuzz_any", "#!/bin/sh\necho \"given $*\"; exit 1\n")
    write("build/fuzz/corpus/any/one", "an input that was found earlier")
    write("bin/clang", "#!/bin/sh\n")
    helper.sh(("chmod +x %s/bin/clang %s/build/fuzz/fuzz/fuzz_any"):format(tree, tree))
    local function seed(said)
      return said:match "given %-seed=(%d+) ", said:match "any has failed with LUNA_SEED=(%d+);",
        said:find("build/fuzz/corpus/any", 1, true) ~= nil
    end
    local function step(setting)
      return seed((test("fuzz", setting .. ' PATH="$PWD/bin:$PATH" MAKE=true')))
    end
    local function by_hand(setting)
      return seed((helper.sh(("cd %s; unset LUNA_SEED; %s MAKE=true scripts/fuzz 1 any")
        :format(tree, setting))))
    end
    local usual, _, kept = step ""
    assert.is_truthy(usual)
    assert.is_false(kept)
    assert.equal(usual, (step ""))
    local asked, told = step "LUNA_SEED=08"
    assert.same({ "9", "08", false }, { asked, told, kept })
    local first, number, with = by_hand ""
    assert.is_true(with)
    assert.are_not.equal(first, (by_hand ""))
    assert.equal(first, (by_hand("LUNA_SEED=" .. number)))
    assert.equal("fuzz: LUNA_SEED is '7x': a number expected, or 'clock'",
      (helper.sh(("cd %s; LUNA_SEED=7x MAKE=true scripts/fuzz 1 any"):format(tree))))
  end)

  it("refuses a directory whose name the specs cannot have", function()
    helper.sh(("mkdir %s/'a b'; cp -r %s/scripts %s/'a b'"):format(tree, tree, tree))
    local said, status = helper.sh(("cd %s/'a b' && scripts/test lua"):format(tree))
    helper.contains("scripts/test: the specs have no quotes around names", said)
    assert.equal(2, status)
  end)

  it("counts a part that dies or hangs as a failure, and names the test", function()
    write("spec/a_spec.lua", 'it("dies", function() os.exit(5) end)')
    write("spec/b_spec.lua", 'it("hangs", function() while true do end end)')
    local lines, last, status = test "lua"
    assert.matches("FAIL: it ended with status [15] and no counts[^\n]*\nFAIL: it was in "
      .. "spec/a_spec.lua:1: dies", lines)
    assert.matches("FAIL: it ended with status 124[^\n]*\nFAIL: it was in spec/b_spec.lua:1: hangs",
      lines)
    assert.equal("0 passed, 2 failed, 0 skipped", last)
    assert.equal(1, status)
  end)

  it("counts it as a failure where there is no test", function()
    for step, text in pairs { lua = "No test files found", core = "FAIL: no test found" } do
      local lines, last, status = test(step)
      helper.contains(text, lines)
      assert.equal("0 passed, 1 failed, 0 skipped", last)
      assert.equal(1, status)
    end
    write("spec/a_spec.lua", "-- nothing")
    assert.equal("0 passed, 1 failed, 0 skipped", select(2, test "lua"))
  end)

  it("runs the C tests of each wing", function()
    for name, body in pairs {
      ["base/test_good"] = "echo 'ok one'; echo '1 passed, 0 failed, 0 skipped'",
      ["base/test_bad"] = "echo 'not ok two: why'; echo '0 passed, 1 failed, 0 skipped'; exit 1",
      ["kvm/test_dead"] = "echo 'ok one'; kill -SEGV $$",
      ["kvm/test_liar"] = "echo '3 passed, 0 failed, 1 skipped'; exit 7",
    } do
      program(name, body)
    end
    local lines, last, status = test "core"
    helper.contains("C tests of base: not ok two: why", lines)
    helper.contains("C tests of kvm: FAIL: it ended with status 139 and no counts", lines)
    helper.contains("C tests of kvm: FAIL: it ended with status 7 although no test failed", lines)
    assert.equal("4 passed, 3 failed, 1 skipped", last)
    assert.equal(1, status)
  end)

  it("runs the specs and C tests on the software CPU, beside KVM and without it", function()
    if not luna.probe().accelerators.soft.available then pending "it was built without one" end
    program("debug/test_any", [[[ "$LUNA_ACCEL" = soft ] && echo '1 passed, 0 failed, 0 skipped']])
    program("kvm/test_own", "echo '0 passed, 1 failed, 0 skipped'; exit 1")
    write("spec/a_spec.lua", [[it("says where it is", function()
      local probe = require("lunavisor").probe()
      print(probe.accel .. (probe.accelerators.kvm.available and " beside KVM" or " alone"))
    end)]])
    local lines, last, status = test("soft",
      ('[ "$LUNAVISOR_LIBRARY" ] || eval "$(make -s -C %s env)";'):format(helper.sh "pwd"))
    local beside = luna.probe().accelerators.kvm.available and "soft beside KVM" or "soft alone"
    helper.contains(" soft 1/1: " .. beside, lines)
    assert.matches(" no KVM 1/1: soft [^\n]*", lines)
    assert.matches("C tests of debug soft +1 passed", lines)
    assert.equal("3 passed, 0 failed, 0 skipped", last)
    assert.equal(0, status)
  end)

  it("refuses a step that it does not know", function()
    local _, last, status = test "luna"
    assert.equal("scripts/test: what is 'luna'?", last)
    assert.equal(2, status)
  end)
end)
