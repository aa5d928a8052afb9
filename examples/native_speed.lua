-- SPDX-License-Identifier: MIT
-- A 64-bit ring-3 guest computes the CRC-32 of a file in a buffer that both sides see, at the
-- processor's own speed; the host does the same in Lua beside it.
--   native_speed.lua [FILE]

local luna = require "lunavisor"

local FILE = arg and arg[1] or "/usr/include/linux/kvm.h"
local CODE, TABLE, INPUT = 0x1000, 0x2000, 0x100000
local POLYNOMIAL = 0xedb88320

-- The host's side, with the bit operators of whichever engine runs.
local bxor, band, rshift
if rawget(_G, "jit") then
  local bit = require "bit"
  bxor, band, rshift = bit.bxor, bit.band, bit.rshift
else
  bxor, band, rshift = load "return function(a, b) return a ~ b end, \z
    function(a, b) return a & b end, function(a, n) return (a & 0xffffffff) >> n end" ()
end

local function make_table()
  local crc_table = {}
  for i = 0, 255 do
    local crc = i
    for _ = 1, 8 do
      crc = band(crc, 1) == 1 and bxor(rshift(crc, 1), POLYNOMIAL) or rshift(crc, 1)
    end
    crc_table[i] = crc % 2 ^ 32
  end
  return crc_table
end

local function crc_on_host(crc_table, data)
  local crc = 0xffffffff
  for i = 1, #data do
    crc = bxor(crc_table[band(bxor(crc, data:byte(i)), 0xff)], rshift(crc, 8))
  end
  return bxor(crc, 0xffffffff) % 2 ^ 32
end

local file = assert(io.open(FILE, "rb"))
local data = file:read "*a"
file:close()

local crc_table = make_table()
local vm = assert(luna.vm())
local ram = assert(luna.buffer("32M"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))
for i = 0, 255 do ram:u32(TABLE + 4 * i, math.floor(crc_table[i])) end
ram:write(INPUT, data)
ram:write(CODE, assert(luna.asm([[
    mov esi, 0x100000           ; rcx: bytes left, set from Lua
    mov ebx, 0x2000
    mov eax, 0xffffffff
  next:
    movzx edx, byte [rsi]
    xor dl, al
    shr eax, 8
    xor eax, [rbx + 4 * rdx]
    inc rsi
    dec rcx
    jnz next
    not eax
    out 0x10, eax               ; ring 3 may: the I/O bitmap allows every port
]], { bits = 64, org = CODE })))

local cpu = assert(vm:vcpu { mode = "user", rip = CODE })
cpu.rcx = #data
vm:pio(0x10, 4, { write = function(_, _, _, value) cpu:stop(value) end })

local begin = luna.clock()
local exit = assert(cpu:run { timeout = 20 })
local guest_time = luna.clock() - begin
assert(exit.kind == "stopped", tostring(exit))

begin = luna.clock()
local expected = crc_on_host(crc_table, data)
local host_time = luna.clock() - begin

print(("%s: %d bytes, CRC-32 %08x"):format(FILE, #data, exit.value))
print(("guest %.2f ms, host in Lua %.2f ms"):format(guest_time * 1e3, host_time * 1e3))
assert(exit.value == expected, "the guest and the host disagree")
vm:close()
ram:close()
