-- SPDX-License-Identifier: MIT
-- Eight pins that software moves and looks at one by one. Lines high0 to high7 and low0 to low7 say
-- what a pin is driven to, neither while it is an input; inputs 0 to 7 are what comes from outside.

local device = require "lunavisor.device"
local word = require "lunavisor.device.word"

local bits = word.bits

local lines = {}
for pin = 0, 7 do
  lines["high" .. pin] = { status = "OUT", enable = "DIRECTION", mask = 2 ^ pin }
  lines["low" .. pin] = function(d)
    return bits(d.DIRECTION, pin) == 1 and bits(d.OUT, pin) == 0
  end
end

-- A pin is what it is driven to, or what drives it.
local function level(d, pin)
  if bits(d.DIRECTION, pin) == 1 then return bits(d.OUT, pin) end
  return d.inputs[pin].level and 1 or 0
end

return device "gpio" {
  width = 1, lines = lines, inputs = 8, input = function() end,
  registers = {
    OUT = { at = 0 },
    DIRECTION = { at = 1, doc = "1: an output" },
    PINS = { at = 2, access = "ro", read = function(d)
      local value = 0
      for pin = 7, 0, -1 do value = 2 * value + level(d, pin) end
      return value
    end },
  },
}
