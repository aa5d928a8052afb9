-- SPDX-License-Identifier: MIT
-- A guest reads characters from a port, answers each in upper case, and stops at the end of the
-- input.

local luna = require "lunavisor"

local input = "a guest reads a port, answers, and halts"
local answer = {}

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

ram:write(0x1000, assert(luna.asm([[
    mov dx, 0x3f8
  next:
    in al, dx
    test al, al
    jz done
    cmp al, 'a'
    jb send
    cmp al, 'z'
    ja send
    sub al, 'a' - 'A'
  send:
    out dx, al
    jmp next
  done:
    hlt
]], { bits = 16, org = 0x1000 })))

local at = 0
vm:pio(0x3f8, 1, {
  read = function()
    at = at + 1
    return input:byte(at) or 0
  end,
  write = function(_, _, _, value) answer[#answer + 1] = string.char(value) end,
})

local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 10 })
assert(exit.kind == "hlt", tostring(exit))

print("to the guest:   " .. input)
print("from the guest: " .. table.concat(answer))
vm:close()
ram:close()
