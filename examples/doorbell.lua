-- SPDX-License-Identifier: MIT
-- A queue as fast devices have it. The guest puts requests into a log register, whose writes KVM
-- collects, and rings a doorbell, which is an eventfd; a status register is plain memory. None of
-- these accesses leaves the guest: there is one exit, at the end.

local luna = require "lunavisor"

local LOG, STATUS, DOORBELL = 0x90, 0x94, 0x98

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

ram:write(0x1000, assert(luna.asm([[
    mov si, 1
  request:
    mov ax, si
    imul ax, si           ; the request: a square
    mov dx, 0x90
    out dx, ax
    mov dx, 0x98
    out dx, al            ; ring
    mov dx, 0x94
    in al, dx             ; how many requests there may be
    inc si
    movzx bx, al
    cmp si, bx
    jbe request
    hlt
]], { bits = 16, org = 0x1000 })))

local requests = {}
assert(vm:pio(LOG, 2, {
  write = function(_, _, _, value) requests[#requests + 1] = value end,
}, { coalesced = true }))

local registers = assert(luna.buffer("4K"))
registers:u8(0, 12)
assert(vm:pio(STATUS, 1, { memory = registers }))

local doorbell = assert(vm:eventfd { port = DOORBELL, size = 1 })

local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 10 })
assert(exit.kind == "hlt", tostring(exit))

print(("the doorbell rang %d times"):format(assert(doorbell:read())))
print("requests: " .. table.concat(requests, " "))
vm:close()
ram:close()
registers:close()
