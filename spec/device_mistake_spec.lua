-- SPDX-License-Identifier: MIT
-- What a beginner does wrong with devices, and what is said. Mistakes within a table are in
-- device_table_spec.lua. No VM is needed.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local t = require "lunavisor.testing"
local u64 = require "lunavisor.text.u64"
local raises = helper.raises

local kind = device "d" {
  registers = { A = { at = 0, fields = { on = 0, two = "2:1" } }, WIDE = { at = 8, width = 8 } },
  lines = { irq = { status = "A" }, out = true }, timers = { tick = print },
}

local dev
before_each(function() dev = kind { log = false } end)

describe("a mistake with a device", function()
  it("is a method with a dot", function()
    for _, name in ipairs { "after", "save", "reset", "log", "expose" } do
      raises(("dev:%s: a device expected, got number; call it with a colon: dev:%s(...)"):format(
        name, name), function() dev[name](1, "tick") end)
    end
    raises("dev:update: a device expected, got nil", function() dev.update() end)
  end)

  it("is the class where a device is meant", function()
    raises("device d: this is the class, which has no A: d() makes a device",
      function() return kind.A end)
    raises("which has no read", function() kind:read(0, 4) end)
    assert.is_nil(rawget(kind, "read"))
    assert.equal("d", kind.name)
  end)

  it("is a line in the place of its level", function()
    raises("device d: irq is a line: dev.lines.irq = true sets its level",
      function() dev.irq = true end)
    raises("device d: out is a line", function() dev.out = 1 end)
    assert.is_false(dev.out.level)
  end)

  it("is a timer that has no name", function()
    raises("dev:after: the name of one of the table's timers expected, got function",
      function() dev:after(1, print) end)
    raises("dev:cancel: the name of one of the table's timers expected, got nil",
      function() dev:cancel() end)
  end)

  it("is a table in the same call as the name", function()
    raises('device x: the table stands behind the name: device "x" { ... }',
      function() device("x", { registers = {} }) end)
  end)

  it("is none where a bit is set to true and false", function()
    dev.A.on = true
    assert.equal(1, dev.A.on)
    dev.A.on = false
    assert.equal(0, dev.A.on)
    raises("d.A.two: a value of 2 bits expected, got boolean", function() dev.A.two = true end)
  end)

  it("is a number beyond those that are exact", function()
    raises('d.WIDE: a value of 64 bits expected, got 18014398509481984, which no number holds '
      .. 'exactly: say luna.u64 "0x..."', function() dev.WIDE = 2 ^ 54 end)
    raises("bus:write64: a value of 8 bytes expected, got 18014398509481984, which no number",
      function() t.bus(kind):write64("WIDE", 2 ^ 54) end)
    dev.WIDE = u64(2 ^ 22, 0)
    assert.equal(u64(2 ^ 22, 0), dev.WIDE)
  end)

  it("is bus:write without a size", function()
    raises("bus:write: a value expected: bus:write(where, size, value), size nil for the "
      .. "register's own", function() t.bus(kind):write("A", 5) end)
    local bus = t.bus(kind)
    bus:write("A", nil, 5)
    assert.reads(bus, "A", 5)
  end)
end)
