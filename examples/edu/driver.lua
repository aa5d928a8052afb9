-- SPDX-License-Identifier: MIT
-- A guest drives a device of the kit (edu.lua) by interrupts and DMA. Time is the script's: each
-- HLT of the guest lets some of it pass.

local luna = require "lunavisor"
local device = require "lunavisor.device"
local folder = arg[0]:match "^(.*)/" or "."
local edu = assert(dofile(folder .. "/edu.lua"))

local file = assert(io.open(folder .. "/driver.asm"))
local code = assert(luna.asm(file:read "*a", { bits = 16, org = 0x1000 }))
file:close()

local clock = device.clock()
local vm = assert(luna.vm { clock = clock })
local ram = assert(luna.buffer "64K")
assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
ram:write(0x1000, code)
local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000, rsp = 0x8000 })

local dev = assert(vm:attach(edu, { mmio = 0xd0000, irq = function(up)
  if up then cpu:irq(0x20) end
end }))
local said = {}
vm:pio(0xe9, 1, { write = function(_, _, _, byte) said[#said + 1] = string.char(byte) end })
cpu:on("hlt", function()
  if #said > 0 then return "stop" end
  clock:advance(100e-6)
  return "continue"
end)

assert(cpu:run { timeout = 10 })
print(("the driver says %s after %.0f us, 10! is %d"):format(table.concat(said):match "%S+",
  clock.now * 1e6, dev.FACT))
print(("in the device's buffer: %q"):format(dev.buffer:match "^[^%z]*"))
print(("back in memory: %q"):format(ram:read(0x700, dev.COUNT)))
vm:close()
