-- SPDX-License-Identifier: MIT
-- An 8-bit-style cartridge: a 16 KiB window into a 256 KiB ROM, and a port that selects which bank
-- the window shows. space:remap switches it without touching KVM's memory slot.

local luna = require "lunavisor"

local BANKS, BANK, WINDOW = 16, 0x4000, 0x8000

local rom = assert(luna.buffer { size = BANKS * BANK, memfd = true })
for bank = 0, BANKS - 1 do
  rom:write(bank * BANK, ("bank %2d says hello\0"):format(bank))
end

local vm = assert(luna.vm())
local ram = assert(luna.buffer("32K"))
local space = vm.default
space:map(ram, 0x0)
space:map(rom, WINDOW, { size = BANK, rights = "r-x", window = true })
local slot = space:find(WINDOW).slot

-- Selects each bank in turn and prints the string at the start of the window.
ram:write(0x1000, assert(luna.asm([[
    xor cl, cl
  bank:
    mov al, cl
    out 0x20, al
    mov si, 0x8000
  next:
    lodsb
    test al, al
    jz done
    out 0x10, al
    jmp next
  done:
    inc cl
    cmp cl, 16
    jb bank
    hlt
]], { bits = 16, org = 0x1000 })))

local line, lines = {}, {}
vm:pio(0x10, 1, {
  write = function(_, _, _, value) line[#line + 1] = string.char(value) end,
})
vm:pio(0x20, 1, {
  write = function(_, _, _, bank)
    lines[#lines + 1] = table.concat(line)
    line = {}
    space:remap(WINDOW, rom, bank * BANK)
  end,
})

local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000 })
local exit = assert(cpu:run { timeout = 10 })
assert(exit.kind == "hlt", tostring(exit))
lines[#lines + 1] = table.concat(line)

print(lines[2])
print("...")
print(lines[#lines])
print(("%d switches, slot %d all the time: %s"):format(#lines - 1, slot,
  tostring(space:find(WINDOW).slot == slot)))
vm:close()
ram:close()
rom:close()
