-- SPDX-License-Identifier: MIT
-- The testing kit, for busted: devices on a bus without a VM, tests that a device's table gives by
-- itself, assertions, guests as fixtures, record and replay. See lua/manual/testing.md.

local class = require "lunavisor.class"
local bus = require "lunavisor.testing.bus"
local tests = require "lunavisor.testing.tests"

local t = {
  bus = bus.new,
  registers = tests.registers,
  derive = tests.list,
}

return class.strict("lunavisor.testing", t)
