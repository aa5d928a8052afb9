-- SPDX-License-Identifier: MIT
-- A 32-bit guest drives a memory-mapped counter: it sets the step, reads the value ten times, and
-- reports the sum of what it read.

local luna = require "lunavisor"

local BASE = 0xd0000000

local counter = { value = 0, step = 1 }

-- Registers: 0 value (read counts on), 4 step, 8 result.
function counter:read(offset, _size)
  if offset == 0 then
    self.value = self.value + self.step
    return self.value
  end
  return offset == 4 and self.step or 0
end

function counter:write(offset, _size, value)
  if offset == 4 then self.step = value end
  if offset == 8 then self.result = value end
end

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))
vm:mmio(BASE, 0x1000, counter)

ram:write(0x1000, assert(luna.asm([[
    mov ebx, 0xd0000000
    mov dword [ebx + 4], 3      ; the step
    mov ecx, 10
    xor eax, eax
  next:
    add eax, [ebx]              ; counts on
    dec ecx
    jnz next
    mov [ebx + 8], eax          ; the result
    hlt
]], { bits = 32, org = 0x1000 })))

local cpu = assert(vm:vcpu { mode = "protected", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 10 })
assert(exit.kind == "hlt", tostring(exit))

print(("the guest counted to %d in steps of %d and summed up %d")
  :format(counter.value, counter.step, counter.result))
vm:close()
ram:close()
