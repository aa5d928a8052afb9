-- SPDX-License-Identifier: MIT
-- A 1 GiB address space whose memory is a file that is mapped only where the guest touches it: each
-- first touch of a 2 MiB piece is a fault, and its handler maps the piece.

local luna = require "lunavisor"

local GIB, PIECE, BASE = 2 ^ 30, 2 ^ 21, 0x40000000

local path = os.tmpname()
local file = assert(io.open(path, "wb"))
file:seek("set", GIB - 8)
file:write("the end.") -- a sparse file of 1 GiB
file:seek("set", 300 * 2 ^ 20)
file:write("in the middle")
file:close()

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
local disk = assert(luna.buffer { file = path, private = true })
os.remove(path)
local space = vm.default
space:map(ram, 0x0)

local mapped = 0
space:on_fault(BASE, GIB, function(_, fault)
  local piece = (fault.gpa - BASE) - (fault.gpa - BASE) % PIECE
  -- separate: a region of its own, so that KVM keeps what it knows of the neighbours
  space:map(disk, piece, BASE + piece, PIECE, "rwx", { separate = true })
  mapped = mapped + 1
  return "retry"
end)

-- Reads a byte in each of 64 places, 16 MiB apart, then two texts.
ram:write(0x1000, assert(luna.asm([[
    mov ebx, 0x40000000
    mov ecx, 64
  next:
    mov al, [ebx]
    add ebx, 0x1000000
    dec ecx
    jnz next
    mov eax, [0x40000000 + 300 * 0x100000]
    out 0x10, eax
    mov eax, [0x7ffffff8]
    out 0x10, eax
    hlt
]], { bits = 32, org = 0x1000 })))

vm:pio(0x10, 4, {
  write = function(_, _, _, value)
    local bytes = {}
    for i = 1, 4 do
      bytes[i] = string.char(value % 256)
      value = math.floor(value / 256)
    end
    print(("the guest read %q"):format(table.concat(bytes)))
  end,
})

local cpu = assert(vm:vcpu { mode = "protected", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 20 })
assert(exit.kind == "hlt", tostring(exit))

print(("%d of %d pieces mapped"):format(mapped, GIB / PIECE))
vm:close()
ram:close()
disk:close()
