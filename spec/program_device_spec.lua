-- SPDX-License-Identifier: MIT
-- luna device and luna test: a device of one's own from nothing to a guest that meets it, its
-- datasheet, what is not modelled, and specs under busted.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local program = require "spec.support.program"
local contains = helper.contains

local directory

local function run(words, before)
  return program.luna(directory, words, before)
end

local function ends(...) return program.ends(directory, ...) end

local function write(name, text) files.write(directory .. "/" .. name, text) end

local function read(name) return files.read(directory .. "/" .. name) end

local function lines_of(name)
  return select(2, read(name):gsub("\n", ""))
end

-- Runs each example in the help of a subcommand; how many there are.
local function run_examples(subcommand)
  local count = 0
  for example in (run(subcommand .. " --help")):gmatch "\n  luna ([^\n]+)" do
    local output, status = run(example, "LUNA_ACCEL=soft")
    assert.equal(0, status, example .. "\n" .. output)
    count = count + 1
  end
  return count
end

local SUBCOMMANDS = { "device", "device new", "device describe", "device coverage", "test" }

describe("luna device", function()
  before_each(function() directory = helper.sh "mktemp -d" end)
  after_each(function() helper.sh("rm -r " .. directory) end)

  it("has a help that fits 80 columns", function()
    for _, words in ipairs(SUBCOMMANDS) do
      local text = ends(0, "Usage: luna " .. words, words .. " --help")
      for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    end
    ends(126, "luna: a command is required", "device")
  end)

  it("writes a device that passes its spec at once", function()
    assert.equal("lamp.lua\nlamp_spec.lua\nlamp.asm", (run "device new lamp"))
    assert.is_true(lines_of "lamp.lua" < 15)
    assert.is_true(lines_of "lamp_spec.lua" < 10)
    local output = ends(0, " / 0 failures / 0 errors / 0 pending", "test")
    assert.is_true(tonumber(output:match "(%d+) successes") > 10)
    write("lamp.lua", (read "lamp.lua":gsub(":upper%(%)", "")))
    ends(1, "lamp_spec.lua", "test")
  end)

  it("takes the name from a file, and any name that a file can have", function()
    helper.sh("mkdir " .. directory .. "/devices")
    for _, name in ipairs { "devices/lamp.lua", "lamp", "end", "t", "two-words" } do
      ends(0, (name:gsub("%.lua$", "")) .. "_spec.lua", "device new " .. name)
    end
    assert.equal(read "lamp.lua", read "devices/lamp.lua")
    local output = ends(0, " / 0 failures / 0 errors", "test")
    ends(0, " / 0 failures / 0 errors", "test " .. directory .. "/devices", "cd /;")
    assert.equal(0, tonumber(output:match "(%d+) successes") % 5)
  end)

  it("writes over nothing", function()
    write("lamp.asm", "mine")
    ends(126, "luna: device new: lamp.asm is there already, and is left as it is",
      "device new lamp")
    assert.equal("lamp.asm", (helper.sh("ls " .. directory)))
    assert.equal("mine", read "lamp.asm")
    ends(126, "none/lamp.lua: No such file", "device new none/lamp")
    ends(126, "luna: device new: a name of letters, digits, '_' and '-', and no digit or '-' "
      .. "first, expected, got \"a.b\"", "device new a.b")
    ends(126, "luna: device new: Lua has a module string already", "device new string")
    ends(126, "luna: device new: Lua has a module busted already", "device new busted")
  end)

  it("prints datasheets", function()
    run "device new lamp"
    local lamp = assert(loadfile(directory .. "/lamp.lua"))()[1]
    assert.equal(device.describe(lamp):gsub("%s+$", ""), (run "device describe lamp.lua"))
    assert.equal(device.describe(lamp, "svg"):gsub("%s+$", ""),
      (run "device describe lamp.lua --format svg"))
    ends(0, "# uart16550", "device describe uart16550")
    ends(126, "luna: device describe: uart1655: a file that ends in .lua, or a device that ships, "
      .. "expected; did you mean 'uart16550'?", "device describe uart1655")
    ends(126, "cannot open none.lua", "device describe none.lua")
    write("number.lua", "return 7")
    ends(126, "number.lua: a device of the kit expected", "device describe number.lua")
  end)

  it("lists what is not modelled", function()
    write("half.lua", [[
      return require "lunavisor.device" "half" { registers = {
        A = { at = 0, fields = { on = 0, mode = { "3:2", todo = "datasheet 4.2" } } },
        B = { at = 4, todo = "datasheet 5" } } }]])
    run "device new lamp"
    assert.equal("half: 2 registers, 2 not modelled or in part\n"
      .. "  A.mode                   datasheet 4.2\n  B                        datasheet 5\n"
      .. "lamp: 2 registers, all modelled\n2 devices, 2 not modelled",
      (run "device coverage half.lua lamp.lua"))
    ends(126, "luna: device coverage: cannot open none.lua", "device coverage half.lua none.lua")
  end)

  it("knows all devices that ship", function()
    local names = {}
    for file in helper.sh("LC_ALL=C ls lua/lunavisor/device/models"):gmatch "([%w_]+)%.lua" do
      if device.is(require("lunavisor.device.models." .. file)) == "class" then
        names[#names + 1] = file
      end
    end
    assert.same(names, require "lunavisor.program.device.open".shipped())
    local output = ends(0, ("\n%d devices, "):format(#names), "device coverage --all")
    for _, name in ipairs(names) do contains("\n" .. name .. ": ", "\n" .. output) end
    local short = run "device coverage"
    assert.is_nil(short:find("all modelled", 1, true))
    contains("uart16550", short)
    contains("  FCR.dma", short)
  end)
end)

describe("luna test", function()
  before_each(function() directory = helper.sh "mktemp -d" end)
  after_each(function() helper.sh("rm -r " .. directory) end)

  it("has 0 for what passes, and 1 for what fails", function()
    write("good_spec.lua", "it('is good', function() assert.equal(1, 1) end)")
    write("bad_spec.lua", "it('is bad', function() assert.equal(1, 2) end)")
    ends(0, "1 success / 0 failures", "test good_spec.lua")
    ends(1, "0 successes / 1 failure", "test bad_spec.lua")
    ends(1, "1 success / 1 failure", "test")
    ends(1, "1 success / 1 failure", "test .", "cd /; cd -;")
    ends(1, "Cannot find file or directory: none", "test none")
    ends(1, "1 success / 0 failures", "test good_spec.lua none_spec.lua")
    write("empty_spec.lua", "return {}")
    ends(1, "luna: there is no test in what was named", "test empty_spec.lua")
    ends(1, "luna: there is no test in what was named", "test good_spec.lua -- --filter bad")
    ends(0, "is good", "test good_spec.lua -- --list")
  end)

  it("runs on the engine that is asked for", function()
    write("engine_spec.lua",
      "it('runs', function() print(rawget(_G, 'jit') and 'jit' or 'puc') end)")
    ends(0, "jit\n", "test --engine luajit")
    ends(0, "puc\n", "test --engine lua5.4")
    ends(0, helper.jit and "jit\n" or "puc\n", "test")
    ends(126, "luna: argument for option '--engine' must be one of", "test --engine lua5.1")
  end)

  it("has guests on the accelerator that is asked for, also those of other programs", function()
    write("accel_spec.lua", [[
      local luna = require "lunavisor"
      it("runs", function()
        print(luna.probe().accel)
        os.execute "echo asked for $LUNA_ACCEL"
        error "so that it fails"
      end)]])
    local output = ends(1, "asked for soft\n", "test --accel soft accel_spec.lua", "LUNA_ACCEL=kvm")
    contains("\nsoft\n", "\n" .. output)
    contains("so that it fails", output)
  end)

  it("hands on what is busted's, with all signs in it", function()
    write("two_spec.lua", "it('is one', function() end) it(\"isn't $2\", function() end)")
    ends(0, "1 success /", [[test -- --filter "isn't [$]2"]])
    ends(0, "1 success /", [[test --accel auto two_spec.lua -- --filter "isn't [$]2"]])
    ends(1, "luna test: error: unknown/bad flag: --nonsense", "test -- --nonsense")
  end)

  it("goes by a .busted", function()
    write(".busted", "return { _all = { ROOT = { 'checks' }, pattern = '_check' } }")
    helper.sh("mkdir " .. directory .. "/checks")
    write("checks/one_check.lua", "it('is there', function() end)")
    write("two_spec.lua", "it('is not asked for', function() error 'no' end)")
    ends(0, "1 success / 0 failures", "test")
  end)

  it("lets a spec require what is beside it, and that what is beside", function()
    helper.sh("mkdir -p " .. directory .. "/deep/er")
    write("outer.lua", "return 1")
    write("deep/outer.lua", "return require 'er.inner' + 1")
    write("deep/er/inner.lua", "return 40")
    write("deep/deep_spec.lua",
      "local outer = require 'outer' it('is beside', function() assert.equal(41, outer) end)")
    write("top_spec.lua",
      "local outer = require 'outer' it('is beside', function() assert.equal(1, outer) end)")
    ends(0, "2 successes / 0 failures", "test")
    write("deep/outer.lua", "x x")
    ends(1, "deep/outer.lua:1:", "test deep")
  end)

  it("says what is missing where there is no busted", function()
    write("one_spec.lua", "it('runs', function() end)")
    local output = ends(126, "luna: this Lua, ", "test",
      "printf 'error()' >busted.lua; mkdir busted; printf 'error()' >busted/compatibility.lua; "
      .. "export LUA_PATH=\"./?.lua;$LUA_PATH\";")
    contains("has no busted (Debian: apt-get install lua-busted; elsewhere: luarocks "
      .. "--lua-version=5.", output)
  end)
end)

helper.kvm("a first device", function()
  before_each(function() directory = helper.sh "mktemp -d" end)
  after_each(function() helper.sh("rm -r " .. directory) end)

  it("meets a guest in three commands", function()
    ends(0, "shout.asm", "device new shout")
    ends(0, " / 0 failures", "test")
    assert.equal("HELLO FROM A GUEST",
      (ends(0, "", "boot shout.asm --device shout.lua", "timeout 20")))
  end)
end)

describe("the examples in the help of luna device and luna test", function()
  it("do what they say", function()
    directory = helper.sh "mktemp -d"
    helper.keep { close = function() helper.sh("rm -r " .. directory) end }
    helper.sh("mkdir " .. directory .. "/devices")
    assert.equal(2, run_examples "device new")
    assert.equal(3, run_examples "device describe")
    assert.equal(3, run_examples "device coverage")
    assert.equal(3, run_examples "test")
  end)
end)
