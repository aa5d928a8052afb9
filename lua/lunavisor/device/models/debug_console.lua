-- SPDX-License-Identifier: MIT
-- A port that takes characters without any protocol: 0xe9 of Bochs, 0x402 of QEMU, by their
-- manuals. Reading it gives 0xe9, by which firmware knows it. Option output: stream.lua.

local device = require "lunavisor.device"
local stream = require "lunavisor.device.models.stream"

return device "debug_console" {
  width = 1, holds = "writer", options = { output = false, present = 0xe9 },
  registers = {
    PRESENT = { at = 0, access = "ro", read = function(d) return d.options.present end },
    OUT = { at = 0, access = "wo", write = function(d, byte) d.writer(string.char(byte)) end },
  },
  init = function(d) d.writer = stream.connect(d, "debug_console") end,
  attached = stream.serve,
}
