-- SPDX-License-Identifier: MIT
-- The teaching device of the manual, as a class of the device kit.

local device = require "lunavisor.device"

local function factorial(n)
  local f = 1
  for i = 2, math.min(n, 40) do f = f * i % 2 ^ 32 end
  return f
end

return device "edu" {
  width = 4, unknown = "ones",
  registers = {
    ID = { at = 0x00, access = "ro", reset = 0x010000ed },
    LIVE = { at = 0x04, read = function(_, value) return 0xffffffff - value end },
    FACT = { at = 0x08, write = function(dev, n)
      dev.FACT = factorial(n)
      dev.ISR.done = dev.STATUS.raise
    end },
    STATUS = { at = 0x20, fields = {
      busy = { 0, "ro" }, raise = 7, dma = { "11:8", todo = "edu.rst, DMA" },
    } },
    ISR = { at = 0x24, access = "w1c", fields = { done = 0, dma = 8 } },
    IER = { at = 0x28 },
  },
  lines = { irq = { status = "ISR", enable = "IER" } },
  timers = { tick = function(dev) dev.ISR.dma = 1 end },
  reset = function(dev) dev:every(1e-4, "tick") end,
}
