-- SPDX-License-Identifier: MIT
-- An I/O APIC, by Intel's datasheet of the 82093AA (290566), whose sections are cited. Lines say
-- whether they are asserted: the polarity is stored and nothing else. Option send takes messages,
-- and says whether anybody took them; ioapic:eoi(vector) is the end of a level interrupt.

local device = require "lunavisor.device"

-- Sends what an input asks for (3.2.4): an edge once, a level until its end.
local function send(d, n)
  local low = d.LOW[n]
  local level = low.trigger == 1
  if low.mask == 1 or level and (low.remote == 1 or not d.inputs[n].level) then return end
  local taken = d.options.send and d.options.send { vector = low.vector, mode = low.mode,
    logical = low.logical == 1, dest = d.HIGH[n].dest, level = level }
  if level and taken then low.remote = 1 end
end

return device "ioapic" {
  width = 4, options = { send = false, id = 0 },
  regions = {
    main = { size = 0x20, unknown = "zeros", registers = {
      SELECT = { at = 0x00, fields = { index = "7:0" } },
      WINDOW = { at = 0x10, bank = "indexed", index = "SELECT.index" },
    } },
    indexed = { size = 0x400, unknown = "zeros", registers = {
      ID = { at = 0, fields = { id = "27:24" } },
      VERSION = { at = 4, access = "const", reset = 0x00170011 }, -- 24 entries
      ARBITRATION = { at = 8, access = "ro" },
      LOW = { at = 0x40, count = 24, stride = 8, fields = { vector = "7:0", mode = "10:8",
        logical = 11, pending = { 12, "ro" }, polarity = 13, remote = { 14, "ro" }, trigger = 15,
        mask = { 16, reset = 1 } }, write = function(d, _, _, _, n)
          if d.LOW[n].trigger == 0 then d.LOW[n].remote = 0 else send(d, n) end
        end },
      HIGH = { at = 0x44, count = 24, stride = 8, fields = { dest = "31:24" } },
    } },
  },
  inputs = 24, input = function(d, n, level) if level then send(d, n) end end,
  reset = function(d) d.ID.id = d.options.id end,
  methods = {
    eoi = function(d, vector)
      for n = 0, 23 do
        local low = d.LOW[n]
        if low.trigger == 1 and low.vector == vector and low.remote == 1 then
          low.remote = 0
          send(d, n)
        end
      end
    end,
  },
}
