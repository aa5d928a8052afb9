-- SPDX-License-Identifier: MIT
-- Registers and MSRs with values that tell them apart, and guest code that writes and stores MSRs.

local luna = require "lunavisor"
local hex, u64 = luna.hex, luna.u64

local state = {}

state.general = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
  "r12", "r13", "r14", "r15" }

--- A value of its own for each index and salt.
function state.value(index, salt)
  return u64(0x10000000 * (index % 8) + 0x01010101 * (index % 16) + salt, 0x22220000 + 257 * index)
end

-- ---- MSRs ----

--- Name, number, a value that is good for it.
state.msrs = {
  { "STAR", 0xc0000081, "0x23001000000000" },
  { "LSTAR", 0xc0000082, "0xffff800012345678" },
  { "CSTAR", 0xc0000083, "0x7fff00001000" },
  { "SFMASK", 0xc0000084, "0x47700" },
  { "KERNEL_GS_BASE", 0xc0000102, "0x7fff12345000" },
  { "SYSENTER_CS", 0x174, "0x10" },
  { "SYSENTER_ESP", 0x175, "0x7ffff000" },
  { "SYSENTER_EIP", 0x176, "0x1234567" },
  { "PAT", 0x277, "0x7040600070406" },
  { "TSC_AUX", 0xc0000103, "0x17" },
  { "MTRR_PHYSBASE0", 0x200, "0x80000006" },
  { "MTRR_PHYSMASK0", 0x201, "0x3f80000800" },
}

--- Writes the MSRs of a list at 0x3000 (number, low, high; until a number 0), and stores them at
--- 0x4000 over and over.
state.msr_source = [[
  mov esi, 0x3000
  next:
  mov ecx, [rsi]
  jrcxz written
  mov eax, [rsi + 4]
  mov edx, [rsi + 8]
  wrmsr
  add esi, 12
  jmp next
  written:
  hlt
  mov esi, 0x3000
  mov edi, 0x4000
  more:
  mov ecx, [rsi]
  jrcxz written
  rdmsr
  mov [rdi], eax
  mov [rdi + 4], edx
  add esi, 12
  add edi, 8
  jmp more]]

--- Puts a list of MSRs where that code reads it.
function state.msr_list(ram, list)
  for i, msr in ipairs(list) do
    local at = 0x3000 + 12 * (i - 1)
    ram:u32(at, msr[2])
    ram:u64(at + 4, u64(msr[3]))
    ram:u32(at + 12, 0)
  end
end

--- What that code stored, by name.
function state.stored(ram, list)
  local values = {}
  for i, msr in ipairs(list) do values[msr[1]] = hex(ram:u64(0x4000 + 8 * (i - 1))) end
  return values
end

return state
