-- SPDX-License-Identifier: MIT
-- Guests of the software CPU, whatever the others run on.

local busted = require "busted"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"

local soft = {}

local has = luna.probe().accelerators.soft

--- As helper.block; pending where the library was built without a software CPU.
function soft.block(name, body)
  if has.available then return helper.block(name, body) end
  busted.describe(name, function()
    busted.it("is tested", function() busted.pending(has.message) end)
  end)
end

--- As helper.guest.
function soft.guest(options)
  options.vm = options.vm or {}
  options.vm.accel = "soft"
  return helper.guest(options)
end

--- As irq.guest, with a LAPIC.
function soft.real(source)
  return irq.guest(source, { vm = { accel = "soft", irqchip = "split" } })
end

return soft
