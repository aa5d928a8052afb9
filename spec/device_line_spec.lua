-- SPDX-License-Identifier: MIT
-- Lines between devices: levels, edges, wired-or, changes during changes. No VM is needed.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local raises = helper.raises

-- Notes what a line tells.
local function notes(line)
  local list = {}
  line:connect(function(level) list[#list + 1] = level and "up" or "down" end)
  return list
end

describe("a line", function()
  it("keeps its level, counts its edges and tells whom it drives", function()
    local line = device.line "a"
    local told = notes(line)
    line:set(true)
    line:set(1)
    line:set(false)
    assert.same({ "up", "down" }, told)
    assert.equal(2, line.edges)
    line:pulse()
    assert.same({ "up", "down", "up", "down" }, told)
    assert.equal("line a (down, 4 edges)", tostring(line))
  end)

  it("drives many", function()
    local line = device.line "a"
    local one, other = notes(line), device.line "b"
    line:connect(other)
    line:set(true)
    assert.same({ "up" }, one)
    assert.is_true(other.level)
  end)

  it("is driven by many, and up while one of them is", function()
    local a, b, both = device.line "a", device.line "b", device.line "both"
    a:connect(both)
    b:connect(both)
    local told = notes(both)
    a:set(true)
    b:set(true)
    a:set(false)
    assert.is_true(both.level)
    b:set(false)
    assert.same({ "up", "down" }, told)
  end)

  it("that is up brings up what it is connected to, and lets it go", function()
    local a, b = device.line "a", device.line "b"
    a:set(true)
    assert.equal(b, a:connect(b))
    assert.is_true(b.level)
    a:disconnect(b)
    assert.is_false(b.level)
    a:set(false)
    a:set(true)
    assert.is_false(b.level)
    raises("line a does not drive that", function() a:disconnect(b) end)
  end)

  it("that changes while it is told tells it afterwards, in order", function()
    local a, seen = device.line "a", {}
    a:connect(function(level)
      seen[#seen + 1] = ("first %s"):format(tostring(level))
      if level then a:set(false) end
    end)
    a:connect(function(level) seen[#seen + 1] = ("second %s"):format(tostring(level)) end)
    a:set(true)
    assert.same({ "first true", "second true", "first false", "second false" }, seen)
  end)

  it("that never comes to rest is an error, and lines work afterwards", function()
    local a = device.line "a"
    a:connect(function(level) a:set(not level) end)
    local ok, message = pcall(a.set, a, true)
    assert.is_false(ok)
    helper.contains("line a: no rest after 10000 changes", message)
    local b = device.line "b"
    local told = notes(b)
    b:set(true)
    assert.same({ "up" }, told)
  end)

  it("works after an error of what it drives", function()
    local a = device.line "a"
    a:connect(function(level) if level then error "boom" end end)
    local told = notes(a)
    helper.contains("boom", select(2, pcall(a.set, a, true)))
    a:set(false)
    assert.same({ "down" }, told)
  end)

  it("refuses what is no level and no target", function()
    local a = device.line "a"
    raises("line:set: true or false (or 1 or 0) expected, got string", function() a:set "up" end)
    raises("line:connect: a line, an input or a function expected", function() a:connect {} end)
    raises("line a cannot drive itself", function() a:connect(a) end)
    raises("a line has no field 'levl'; did you mean 'level'?", function() return a.levl end)
  end)
end)

describe("the lines of a device", function()
  it("can fall and rise within one access", function()
    local dev = device "d" { registers = { A = { at = 0, write = function(d)
      d.A = 0
      d.A = 1
    end } }, lines = { irq = { status = "A" } } } ()
    local told = notes(dev.irq)
    dev:write(0, 4, 1)
    assert.same({ "up", "down", "up" }, told)
  end)

  it("follow a field, a mask and a gate", function()
    local dev = device "d" { registers = {
      S = { at = 0, fields = { a = 0, b = 1, on = 31 } }, E = { at = 4 },
    }, lines = {
      a = { status = "S.a" }, low = { status = "S", mask = 3, enable = "E", gate = "S.on" },
    } } ()
    dev.S.b = 1
    dev.E = 2
    assert.is_false(dev.lines.a)
    assert.is_false(dev.lines.low)
    dev.S.on = 1
    assert.is_true(dev.lines.low)
    dev:write(0, 4, 1)
    assert.is_true(dev.lines.a)
    assert.is_false(dev.lines.low)
  end)

  it("without a rule are the author's", function()
    local dev = device "d" { registers = {}, lines = { out = true } } ()
    dev.lines.out = true
    assert.is_true(dev.out.level)
    dev.out:set(false)
    assert.is_false(dev.lines.out)
    raises("device d has no line irq that can be set", function() dev.lines.irq = true end)
  end)

  it("are brought up to date by a function, after every access", function()
    local cause = false
    local dev = device "d" { registers = { A = { at = 0, write = function() cause = true end } },
      lines = { irq = function() return cause end } } ()
    dev:write(0, 4, 0)
    assert.is_true(dev.lines.irq)
    cause = false
    dev:update()
    assert.is_false(dev.lines.irq)
  end)

  it("come to the inputs of another", function()
    local seen = {}
    local pic = device "pic" { registers = {}, inputs = 8,
      input = function(_, n, level) seen[#seen + 1] = ("%d %s"):format(n, tostring(level)) end } ()
    local dev = device "d" { registers = { A = { at = 0 } }, lines = { irq = { status = "A" } } } ()
    dev.irq:connect(pic.inputs[4])
    dev:write(0, 4, 1)
    dev.A = 0
    assert.same({ "4 true", "4 false" }, seen)
    assert.is_false(pic.inputs[4].level)
    raises("device pic has no input 8", function() return pic.inputs[8] end)
  end)

  it("have named inputs, which change lines in turn", function()
    local dev = device "timer" { registers = { A = { at = 0 } },
      inputs = { gate = function(d, level) d.A = level and 1 or 0 end },
      lines = { out = { status = "A" } } } ()
    local told = notes(dev.out)
    dev.inputs.gate:set(true)
    assert.same({ "up" }, told)
  end)
end)
