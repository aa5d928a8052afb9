-- SPDX-License-Identifier: MIT
-- One vCPU, two address spaces over the same memory: at one guest-physical address it sees another
-- page in each, and in the second it may not write to what it may write to in the first.

local luna = require "lunavisor"

local SHARED, SECRET = 0x10000, 0x20000

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
local pages = assert(luna.buffer("8K"))
pages:write(0x0000, "the page of space 0\0")
pages:write(0x1000, "the page of the view\0")

vm:map_space(0, ram, 0x0, { rights = "rwx" })
vm:map_space(0, pages, SHARED, { size = 0x1000 })
vm:map_space(0, pages, 0x1000, SECRET, 0x1000, "rwx")

local view = assert(vm:space())
view:map(ram, 0x0, { rights = "r-x" })                            -- the same code, read-only
view:map(pages, SHARED, { offset = 0x1000, size = 0x1000, rights = "rw-" })
-- nothing at SECRET

-- Prints the string at SHARED, then increments a counter in ram, over and over.
ram:write(0x1000, assert(luna.asm([[
  again:
    mov esi, 0x10000
  next:
    lodsb
    test al, al
    jz done
    out 0x10, al
    jmp next
  done:
    inc dword [0x8000]
    out 0x11, al
    jmp again
]], { bits = 32, org = 0x1000 })))

local text = {}
vm:pio(0x10, 1, {
  write = function(_, _, _, value) text[#text + 1] = string.char(value) end,
})

local cpu = assert(vm:vcpu { mode = "protected", rip = 0x1000 })
vm:pio(0x11, 1, { write = function() cpu:stop() end })
cpu:on("fault", function(_, fault)
  print(("  fault: %s at gpa 0x%x"):format(fault.access == "w" and "write" or "read", fault.gpa))
  return "skip"
end)

local function round()
  text = {}
  local exit = assert(cpu:run { timeout = 5 })
  assert(exit.kind == "stopped", tostring(exit))
  print(("space %d: %q, counter %d"):format(cpu.space.id, table.concat(text), ram:u32(0x8000)))
end

round()
cpu:set_space(view)
round()
cpu:set_space(0)
round()
print(view)
vm:close()
ram:close()
pages:close()
