-- SPDX-License-Identifier: MIT
-- A breakpoint that the guest cannot see: what it executes has an undefined instruction (ud2) in
-- it, what it reads at the same address has not.
--
-- KVM has no memory that can be executed and not read, so the two views are two spaces. In
-- `reading` the page with the function is data, answered from the clean bytes; its execution is a
-- fault, and the vCPU moves to `executing`. There only that page, with the breakpoint, can be
-- executed: when the guest leaves it, the fetch is a fault again and the vCPU moves back.

local luna = require "lunavisor"

local PAGE = 0x1000
local MAIN, STACK, TARGET, DATA = 0x1000, 0x2000, 0x4000, 0x8000

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
local patched = assert(luna.buffer("4K"))

-- Reports a checksum of the function's code, calls it three times, reports the checksum again.
ram:write(MAIN, assert(luna.asm([[
    call checksum
    mov ebx, 3
  again:
    mov eax, 0x4000
    call eax
    dec ebx
    jnz again
    call checksum
    hlt
  checksum:
    mov esi, 0x4000
    mov ecx, 16
    xor eax, eax
  next:
    rol eax, 5
    add eax, [esi]
    add esi, 4
    dec ecx
    jnz next
    out 0x10, eax
    ret
]], { bits = 32, org = MAIN })))
local target = assert(luna.asm("inc dword [0x8000]\n ret", { bits = 32, org = TARGET }))
ram:write(TARGET, target)
patched:write(0, "\15\11" .. target:sub(3)) -- ud2

local reading = vm.default
reading:map(ram, 0x0, { size = TARGET })
reading:map(ram, TARGET, { offset = TARGET, size = PAGE, rights = "r--", strict = true })
reading:map(ram, DATA, { offset = DATA, size = PAGE })

local executing = assert(vm:space())
executing:map(patched, TARGET, { rights = "r-x" })
executing:map(ram, STACK, { offset = STACK, size = 2 * PAGE })
executing:map(ram, DATA, { offset = DATA, size = PAGE })

local cpu = assert(vm:vcpu { mode = "protected", rip = MAIN, rsp = TARGET })
local moves, hits, sums = 0, 0, {}

vm:pio(0x10, 4, { write = function(_, _, _, value) sums[#sums + 1] = value end })

cpu:on("fault", function(_, fault)
  if fault.access ~= "x" then return "stop" end
  moves = moves + 1
  cpu:set_space(cpu.space == reading and executing or reading)
  return "retry"
end)

cpu:on("exception", function(_, exception)
  if exception.name ~= "#UD" or cpu.rip ~= luna.u64(TARGET) then return "stop" end
  hits = hits + 1
  ram:u32(DATA, ram:u32(DATA) + 1) -- what the instruction under the breakpoint does
  cpu.rip = TARGET + #target - 1   -- on to its ret
  return "continue"
end)

local exit = assert(cpu:run { timeout = 10 })
assert(exit.kind == "hlt", tostring(exit))
print(("the breakpoint was hit %d times, the function ran %d times"):format(hits, ram:u32(DATA)))
print(("the guest's checksum of the code: %08x before, %08x after"):format(sums[1], sums[2]))
print(("%d moves between the spaces"):format(moves))
assert(sums[1] == sums[2], "the guest saw the breakpoint")
vm:close()
ram:close()
patched:close()
