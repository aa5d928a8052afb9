-- SPDX-License-Identifier: MIT
-- What of the PIIX3 (Intel's datasheet 290550) is no device of its own: its function 0, the ISA
-- bridge, which routes PCI's interrupts to those of the 8259s by a table, PIRQRC[A:D]. A PC's host
-- bridge leads inta to pirqd, intb to pirqa, intc to pirqb, intd to pirqc.

local pci = require "lunavisor.device.models.pci"

local PIRQS = { [0] = "pirqa", "pirqb", "pirqc", "pirqd" }
local RESERVED = { [0] = true, [1] = true, [2] = true, [8] = true, [13] = true }

local inputs, lines = {}, {}
for _, name in pairs(PIRQS) do inputs[name] = function() end end

for irq = 0, 15 do
  if not RESERVED[irq] then
    lines["irq" .. irq] = function(d)
      for n = 0, 3 do
        local route = d.PIRQRC[n]
        if route.irq == irq and route.off == 0 and d.inputs[PIRQS[n]].level then return true end
      end
      return false
    end
  end
end

return pci.device "piix3" {
  pci = { vendor = 0x8086, device = 0x7000, class = 0x060100, header = 0x80, registers = {
    PIRQRC = { at = 0x60, width = 1, count = 4, fields = { irq = "3:0",
      off = { 7, reset = 1 } } },
  } },
  inputs = inputs, lines = lines,
}
