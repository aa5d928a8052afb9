-- SPDX-License-Identifier: MIT
-- The testing kit, for busted: devices on a bus without a VM, tests that a device's table gives by
-- itself, assertions, guests as fixtures. See lua/manual/testing.md.

local class = require "lunavisor.class"
local assertions = require "lunavisor.testing.assertions"
local bus = require "lunavisor.testing.bus"
local failures = require "lunavisor.testing.fail"
local guest = require "lunavisor.testing.guest"
local replay = require "lunavisor.testing.replay"
local tests = require "lunavisor.testing.tests"
local wire = require "lunavisor.testing.wire"

local t = {
  bus = bus.new,
  registers = tests.registers,
  derive = tests.list,
  guest = guest.new,
  replay = replay.new,
  close = failures.close,
}

--- Notes the edges of a line from here on, for assert.edges; those of a bus are noted already.
--- Returns the line.
function t.watch(line)
  wire.watch(wire.line("t.watch", line))
  return line
end

assertions.install()

return class.strict("lunavisor.testing", t)
