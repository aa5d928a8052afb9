-- SPDX-License-Identifier: MIT
-- A 16-bit guest prints through a UART whose data port is a Lua function.

local luna = require "lunavisor"

local vm = assert(luna.vm())
local ram = assert(luna.buffer("2M"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

ram:write(0x1000, assert(luna.asm([[
    mov si, text
  next:
    lodsb
    test al, al
    jz done
    mov dx, 0x3f8
    out dx, al
    jmp next
  done:
    hlt
  text:
    db "hello from a 16-bit guest", 10, 0
]], { bits = 16, org = 0x1000 })))

vm:pio(0x3f8, 8, {
  write = function(_, _, _, value) io.write(string.char(value)) end,
})

local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 5 })

print(exit)
print(("%d exits"):format(cpu.exits))
print(vm.default)
vm:close()
ram:close()
