-- SPDX-License-Identifier: MIT
-- The mode a vCPU is in: the width of its code, its paging, and where its code and its stack lie.

local u64 = require "lunavisor.text.u64"

local M = {}

--- Whether a bit is set.
function M.bit(value, bit)
  return u64.band(u64.rshift(value, bit), 1) == u64.exact(1)
end

local bit = M.bit

--- The width of its code, 64, 32 or 16, by D/B and L of the rights of CS.
function M.bits(cpu)
  local access = cpu.cs.access
  return bit(access, 13) and 64 or bit(access, 14) and 32 or 16
end

--- Whether there are page tables.
function M.pages(cpu)
  return bit(cpu.cr0, 31)
end

--- The linear address of an offset in the code segment.
function M.linear(cpu, rip)
  if M.bits(cpu) == 64 then return rip end -- there are no segment bases
  return u64.band(cpu.cs.base + rip, 0xffffffff)
end

--- The offset in the code segment of a linear address.
function M.offset(cpu, address)
  if M.bits(cpu) == 64 then return address end
  return u64.band(address - cpu.cs.base, 0xffffffff)
end

--- The linear address of what lies `below` bytes under the top of its stack.
function M.stack(cpu, below)
  local bits = M.bits(cpu)
  if bits == 64 then return cpu.rsp - u64(below) end
  local mask = bit(cpu.ss.access, 14) and 0xffffffff or 0xffff
  return u64.band(cpu.ss.base + u64.band(cpu.rsp - u64(below), mask), 0xffffffff)
end

local function paging_text(cpu)
  if not M.pages(cpu) then return "no paging" end
  local cr4 = cpu.cr4
  if bit(cpu.efer, 10) then return bit(cr4, 12) and "5-level paging" or "4-level paging" end
  return bit(cr4, 5) and "PAE paging" or "32-bit paging"
end

local function segment_text(cpu)
  local bits = M.bits(cpu)
  if not bit(cpu.cr0, 0) then return bits == 16 and "real mode" or bits .. "-bit real mode" end
  if bit(cpu.rflags, 17) then return "virtual-8086 mode" end
  if bits == 64 then return "64-bit mode" end
  return bits .. "-bit " .. (bit(cpu.efer, 10) and "compatibility mode" or "protected mode")
end

--- "64-bit mode, ring 0, 4-level paging, interrupts off"
function M.text(cpu)
  local ring = bit(cpu.cr0, 0) and u64.tonumber(u64.band(cpu.cs.selector, 3)) or 0
  return ("%s, ring %d, %s, interrupts %s"):format(segment_text(cpu), ring, paging_text(cpu),
    bit(cpu.rflags, 9) and "on" or "off")
end

return M
