-- SPDX-License-Identifier: MIT
-- Teaches the guest an instruction that no x86 processor has: a CRC-32 (that of zlib and PNG) of a
-- byte in memory, UD1 EAX, [RSI], which is the processor's way of saying "undefined" with operands.
--
-- Where KVM emulates the guest's ring 0, the emulator gives up: an exit "instruction". Where the
-- processor runs the guest, it raises #UD: an exit "exception". One function does the work of both.

local luna = require "lunavisor"
local u64 = luna.u64

local TEXT = "123456789"

local vm = assert(luna.vm())
local ram = assert(luna.buffer "64K")
assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
ram:write(0x4000, TEXT)
ram:write(0x1000, assert(luna.asm([[
    mov eax, 0xffffffff
    mov esi, 0x4000
    mov ecx, ]] .. #TEXT .. [[

  next:
    ud1 eax, [rsi]
    inc esi
    dec ecx
    jnz next
    not eax
    hlt
]], { bits = 64, org = 0x1000 })))

local cpu = assert(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x3000 })
local POLYNOMIAL = 0xedb88320
local done = 0

local function crc_step(crc, byte)
  crc = u64.bxor(crc, byte)
  for _ = 1, 8 do
    local carry = u64.band(crc, 1) == u64(1)
    crc = u64.rshift(crc, 1)
    if carry then crc = u64.bxor(crc, POLYNOMIAL) end
  end
  return crc
end

local function teach(guest)
  if guest:read(guest.rip, 3) ~= "\x0f\xb9\x06" then return "stop" end
  guest.rax = crc_step(guest.rax, guest:u8(guest.rsi))
  done = done + 1
  guest.rip = guest.rip + u64(3)
  return "continue"
end

cpu:on("instruction", teach)
cpu:on("exception", teach)

local exit = assert(cpu:run { timeout = 10 })
assert(exit.kind == "hlt", tostring(exit))
print(("the guest did ud1 eax, [rsi] %d times"):format(done))
print(("CRC-32 of %s: %s"):format(TEXT, luna.hex(u64.band(cpu.rax, 0xffffffff))))
vm:close()
ram:close()
