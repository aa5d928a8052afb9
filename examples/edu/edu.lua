-- SPDX-License-Identifier: MIT
-- A device to learn by, after QEMU's (docs/specs/edu.rst): it says who it is, inverts what is
-- written, computes factorials, copies between memory and a buffer of its own, and interrupts.
-- edu_spec.lua is its spec, driver.asm a driver for it.

local device = require "lunavisor.device"

local SIZE = 4096        -- bytes of the buffer
local TRANSFER = 100e-6  -- seconds

local function factorial(n)
  local product = 1
  for i = 2, math.min(n, 40) do product = product * i % 2 ^ 32 end -- 0 from 34 on
  return product
end

local function transfer(dev)
  local offset, count = dev.OFFSET, dev.COUNT
  if offset + count > SIZE then
    dev:log(("a transfer of %d bytes at 0x%x does not fit in the buffer"):format(count, offset))
  elseif dev.CMD.outward == 1 then
    dev.dma:write(dev.ADDRESS, dev.buffer:sub(offset + 1, offset + count))
  else
    local data = dev.dma:read(dev.ADDRESS, count) or ""
    dev.buffer = dev.buffer:sub(1, offset) .. data .. dev.buffer:sub(offset + #data + 1)
  end
  dev.CMD.start, dev.STATUS.busy = 0, 0
  if dev.CMD.interrupt == 1 then dev.ISR.dma = 1 end
end

return device "edu" {
  width = 4, unknown = "ones",
  registers = {
    ID = { at = 0x00, access = "ro", reset = 0x010000ed },
    LIVE = { at = 0x04, read = function(_, value) return 0xffffffff - value end },
    FACT = { at = 0x08, write = function(dev, n)
      dev.FACT = factorial(n)
      if dev.STATUS.raise == 1 then dev.ISR.done = 1 end
    end },
    STATUS = { at = 0x20, fields = {
      busy = { 0, "ro" }, raise = 7, dma = { "11:8", todo = "edu.rst, DMA" },
    } },
    ISR = { at = 0x24, access = "w1c", fields = { done = 0, dma = 8 } },
    IER = { at = 0x28 },
    ADDRESS = { at = 0x80, width = 8 },
    OFFSET = { at = 0x88 }, COUNT = { at = 0x8c },
    CMD = { at = 0x90, fields = { start = 0, outward = 1, interrupt = 2 },
      write = function(dev)
        if dev.CMD.start == 0 then return end
        dev.STATUS.busy = 1
        dev:after(TRANSFER, "transfer")
      end },
  },
  lines = { irq = { status = "ISR", enable = "IER" } },
  timers = { transfer = transfer },
  state = { buffer = ("\0"):rep(SIZE) },
}
