-- SPDX-License-Identifier: MIT
-- The small ports of a PC: system ports, debug console, debug exit, and ACPI's fixed hardware.

local acpi_pm = require "lunavisor.device.models.acpi_pm"
local debug_console = require "lunavisor.device.models.debug_console"
local debug_exit = require "lunavisor.device.models.debug_exit"
local device = require "lunavisor.device"
local i8254 = require "lunavisor.device.models.i8254"
local random = require "spec.support.device"
local stream = require "lunavisor.device.models.stream"
local system_ports = require "lunavisor.device.models.system_ports"

describe("port 0x61", function()
  it("gates counter 2 and shows its output", function()
    local clock = device.clock()
    local pit = i8254 { clock = clock }
    local b = system_ports { clock = clock, pit = pit, log = false }.regions.b
    pit:write(3, 1, 0xb0)
    pit:write(2, 1, 100)
    pit:write(2, 1, 0)
    clock:advance(0.001)
    assert.equal(0, b.read(nil, 0, 1) % 64 - b.read(nil, 0, 1) % 32)
    b.write(nil, 0, 1, 1)
    assert.equal(0x01, b.read(nil, 0, 1) % 16)
    clock:advance(0.001)
    assert.equal(0x20, b.read(nil, 0, 1) % 64 - b.read(nil, 0, 1) % 32)
  end)

  it("toggles a bit with each refresh of memory", function()
    local clock = device.clock()
    local b = system_ports { clock = clock }.regions.b
    local changes, before = 0, 0
    for _ = 1, 1000 do
      clock:advance(1e-6)
      local now = math.floor(b.read(nil, 0, 1) / 16) % 2
      if now ~= before then changes = changes + 1 end
      before = now
    end
    assert.equal(66, changes)
  end)
end)

describe("port 0x92", function()
  it("opens A20 and resets at the rise of its bit", function()
    local ports = system_ports()
    local a, resets = ports.regions.a, 0
    ports.reset_out:connect(function(up)
      if up then resets = resets + 1 end
    end)
    a.write(nil, 0, 1, 2)
    assert.is_true(ports.lines.a20)
    assert.equal(2, a.read(nil, 0, 1))
    a.write(nil, 0, 1, 3)
    a.write(nil, 0, 1, 3)
    assert.equal(1, resets)
    a.write(nil, 0, 1, 2)
    a.write(nil, 0, 1, 3)
    assert.equal(2, resets)
  end)
end)

describe("the debug console", function()
  it("takes characters and says that it is there", function()
    local out = stream.ring()
    local console = debug_console { output = out }
    for byte in ("hi\n"):gmatch "." do console:write(0, 1, byte:byte()) end
    assert.equal("hi\n", out:text())
    assert.equal(0xe9, console:read(0, 1))
  end)
end)

describe("the debug exit", function()
  it("hands over the value and the status of a process", function()
    local got
    local port = debug_exit { exit = function(...) got = { ... } end }
    assert.is_nil(port.value)
    port:write(0, 4, 0x10)
    assert.same({ 0x10, 0x21 }, got)
    assert.equal(0x10, port.value)
    port:write(0, 1, 0)
    assert.same({ 0, 1 }, got)
  end)
end)

describe("ACPI's fixed hardware", function()
  local acpi, clock
  before_each(function()
    clock = device.clock()
    acpi = acpi_pm { clock = clock, log = false }
  end)

  it("has a timer of 3.579545 MHz and 24 bits", function()
    clock:advance(1)
    assert.equal(3579545, acpi:read(8, 4))
    clock:advance(4)
    assert.equal(5 * 3579545 % 2 ^ 24, acpi:read(8, 4))
  end)

  it("says when the timer's highest bit changes, and interrupts", function()
    clock:advance(2.4)
    assert.equal(1, acpi:read(0, 2))
    acpi:write(0, 2, 1)
    assert.equal(0, acpi:read(0, 2))
    acpi:write(2, 2, 1)
    acpi.regions.command.write(nil, 0, 1, 0xf1)
    assert.equal(1, acpi:read(4, 2))
    clock:advance(2.2)
    assert.is_false(acpi.lines.sci)
    clock:advance(0.1)
    assert.is_true(acpi.lines.sci)
    acpi:write(0, 2, 1)
    assert.is_false(acpi.lines.sci)
  end)

  it("interrupts by its buttons while ACPI is on", function()
    acpi:write(2, 2, 0x100)
    acpi:press_power()
    assert.is_false(acpi.lines.sci)
    acpi.regions.command.write(nil, 0, 1, 0xf1)
    assert.is_true(acpi.lines.sci)
    acpi.regions.command.write(nil, 0, 1, 0xf0)
    assert.is_false(acpi.lines.sci)
  end)

  it("turns off in S5 alone", function()
    acpi:write(4, 2, 0x2400)
    assert.is_false(acpi.lines.off)
    assert.equal(0x0400, acpi:read(4, 2))
    acpi:write(4, 2, 0x2000)
    assert.is_true(acpi.lines.off)
    acpi:reset()
    assert.is_false(acpi.lines.off)
  end)

  it("resets by its register", function()
    local register = acpi.regions.reset
    register.write(nil, 0, 1, 2)
    assert.equal(0, acpi.reset_out.edges)
    register.write(nil, 0, 1, 6)
    assert.equal(2, acpi.reset_out.edges)
  end)
end)

random.describe("acpi_pm", function(log) return acpi_pm { log = log } end)
random.describe("system_ports", function(log)
  return system_ports { log = log, pit = i8254 { log = log } }
end)
random.describe("debug_exit", function(log) return debug_exit { log = log } end)
