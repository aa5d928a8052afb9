-- SPDX-License-Identifier: MIT
-- A port with which a guest ends its run and says how it went, as QEMU's isa-debug-exit (0xf4 or
-- 0x501): a process exits with 2 * value + 1 there, which keeps 0 for other ends. Option exit: a
-- function(value, status), called at each write; dev.value is the last one, nil before.

local device = require "lunavisor.device"

return device "debug_exit" {
  width = 4, unknown = "zeros", holds = "value", options = { exit = false },
  registers = { EXIT = { at = 0, write = function(d, value)
    d.value = value
    if d.options.exit then d.options.exit(value, (2 * value + 1) % 256) end
  end } },
  reset = function(d) d.value = nil end,
}
