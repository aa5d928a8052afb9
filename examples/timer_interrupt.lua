-- SPDX-License-Identifier: MIT
-- A timer written in Lua: the guest sets its period and halts; each HLT lets the next period pass
-- and brings an interrupt, until the guest has counted enough ticks.

local luna = require "lunavisor"

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

local VECTOR = 0x20
ram:u16(4 * VECTOR, 0x1100) -- the guest's interrupt table: where the handler is
ram:u16(4 * VECTOR + 2, 0)

ram:write(0x1000, assert(luna.asm([[
    xor bx, bx
    mov ax, 10         ; milliseconds
    out 0x40, ax
    sti
  idle:
    hlt
    cmp bx, 5
    jb idle
    cli
    mov ax, bx
    out 0x44, ax       ; done
    hlt
]], { bits = 16, org = 0x1000 })))

ram:write(0x1100, assert(luna.asm([[
    inc bx
    iret
]], { bits = 16, org = 0x1100 })))

local period, time, ticks = 0, 0, nil
vm:pio(0x40, 2, { write = function(_, _, _, value) period = value end })
vm:pio(0x44, 2, { write = function(_, _, _, value) ticks = value end })

local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000, rsp = 0x3000 })

-- A HLT without an interrupt that waits is an exit: the time of this machine goes on.
cpu:on("hlt", function()
  if ticks then return "stop" end
  time = time + period
  print(("%2d ms: tick"):format(time))
  cpu:irq(VECTOR)
  return "continue"
end)

local exit = assert(cpu:run { timeout = 10 })
print(("%s after %d ticks"):format(exit.kind, ticks))
vm:close()
