-- SPDX-License-Identifier: MIT
-- The ports 0x61 (speaker and NMI, regions.b) and 0x92 (A20 and reset, regions.a) of a PC, by
-- Intel's ICH9 datasheet (13.7.1, 13.7.3). Option pit: the i8254 whose counter 2 they gate. Input
-- a20: what the gate is now, for it has other ways too.

local device = require "lunavisor.device"

local REFRESH = 15.085e-6 -- seconds between two refreshes of memory

return device "system_ports" {
  width = 1, options = { pit = false },
  regions = {
    b = { registers = { NMI_SC = { at = 0, fields = {
      gate2 = 0, speaker = 1, no_serr = 2, no_iochk = 3,
      refresh = { 4, "ro", read = function(d) return math.floor(d.now / REFRESH) % 2 end },
      out2 = { 5, "ro", read = function(d)
        local pit = d.options.pit
        return pit and pit:out(2) and 1 or 0
      end },
      iochk = { 6, "ro" }, serr = { 7, "ro" },
    } } } },
    a = { registers = { PORT92 = { at = 0, fields = { a20 = 1, fast_reset = { 0,
      write = function(d, new, old) -- a reset comes of its rise
        if new > old then d.reset_out:pulse() end
      end } } } } },
  },
  lines = {
    gate2 = { status = "NMI_SC.gate2" }, a20 = { status = "PORT92.a20" }, reset_out = true,
    speaker = { status = "NMI_SC.speaker" },
  },
  inputs = { a20 = function(d, level) d.PORT92.a20 = level and 1 or 0 end },
  init = function(d, options)
    if options.pit then d.gate2:connect(options.pit.inputs.gate2) end
  end,
}
