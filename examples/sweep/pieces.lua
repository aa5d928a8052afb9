-- SPDX-License-Identifier: MIT
-- A unit of a sweep: how many faults it takes, and how much memory, to map 64 MiB on demand in
-- pieces of `piece` KiB where a guest touches 512 pages of them: at random, in runs of 16
-- neighbours at random places, or one each 68 KiB. The same on every host: `seed` says where.

local luna = require "lunavisor"

local given = luna.arguments
local PIECE, ACCESS, SEED = (given.piece or 64) * 2 ^ 10, given.access or "random", given.seed or 1
local SIZE, BASE, TOUCHES = 2 ^ 26, 0x40000000, 512

local JUMP = [[
  imul eax, eax, 1664525
  add eax, 1013904223
  mov edx, eax
  shr edx, 4
]]

local WAYS = {
  random = JUMP,
  runs = "test ecx, 15\n jnz beside\n" .. JUMP .. "jmp there\n beside: add edx, 0x1000\n there:\n",
  stride = "add edx, 0x11000\n",
}

local way = WAYS[ACCESS]
if not way then error("access: random, runs or stride expected, got " .. ACCESS) end
if PIECE % 4096 ~= 0 or PIECE > SIZE then
  error(("piece: KiB in whole pages up to 64 MiB expected, got %s"):format(given.piece))
end

local vm = assert(luna.vm())
local code, memory = assert(luna.buffer "64K"), assert(luna.buffer(SIZE))
local space = vm.default
space:map(code, 0x0)
code:write(0x1000, assert(luna.asm(([[
    mov eax, %d
    mov ecx, %d
    xor edx, edx
  next:
    %s
    and edx, 0x3fff000
    mov byte [edx + 0x40000000], 1
    dec ecx
    jnz next
    hlt ]]):format(SEED, TOUCHES, way), { bits = 32, org = 0x1000 })))

local faults = 0
space:on_fault(BASE, SIZE, function(_, fault)
  local at = (fault.gpa - BASE) - (fault.gpa - BASE) % PIECE
  space:map(memory, at, BASE + at, math.min(PIECE, SIZE - at), "rwx", { separate = true })
  faults = faults + 1
  return "retry"
end)

local cpu = assert(vm:vcpu { mode = "protected", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 60 })
assert(exit.kind == "hlt", tostring(exit))
vm:close()
memory:close()
code:close()
return { faults = faults, mapped = faults * PIECE / 2 ^ 20 }
