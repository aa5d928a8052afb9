-- SPDX-License-Identifier: MIT
-- The ports that QEMU's pc-testdev has: a word that is kept (0xe0), one whose writes do nothing
-- here (0xe4; there it takes a page of memory away and gives it back), and one for each interrupt
-- line (0x2000). Option line: a function(number, level).

local device = require "lunavisor.device"
local word = require "lunavisor.device.word"

local LINES = 24

local function read(d, offset, size) return word.bits(d.kept, 8 * offset, 8 * size) end

return device "test_device" {
  options = { line = false },
  regions = {
    port = { size = 4, read = read, write = function(d, offset, size, value)
      d.kept = word.insert(d.kept, 8 * offset, 8 * size, value)
    end },
    flush = { size = 4, read = function() return 0 end, write = function() end },
    lines = { size = LINES, read = function() return 0 end, write = function(d, offset, _, value)
      d.options.line(offset, value ~= 0)
    end },
  },
  state = { kept = 0 },
}
