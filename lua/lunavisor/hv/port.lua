-- SPDX-License-Identifier: MIT
-- IN, OUT, INS and OUTS as the guest's code has them (SDM Vol. 2): KVM tells port, size and
-- direction, but not the instruction's length and form.

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"

local has = call.has

local LONGEST = 15 -- of any instruction
local PAGE = 4096
local CS_LONG, CS_DEFAULT_32 = 0x2000, 0x4000
local SEGMENT_DS = 3

-- The number that the VMCS has for the segment of an override prefix.
local overrides = {
  [0x26] = 0, [0x2e] = 1, [0x36] = 2, [0x3e] = SEGMENT_DS, [0x64] = 4, [0x65] = 5,
}

local M = {}

local function read(cpu, linear, before, after)
  local ok, bytes = pcall(cpu.read, cpu, linear - u64.exact(before), before + after)
  if ok and bytes then return bytes:sub(1, before), bytes:sub(before + 1) end
end

--- The bits of the code segment, and the linear address of rip.
function M.place(cpu, rip)
  local access = u64.tonumber(cpu.cs.access)
  if has(access, CS_LONG) then return 64, rip end
  return has(access, CS_DEFAULT_32) and 32 or 16, u64.band(cpu.cs.base + rip, 0xffffffff)
end

-- The bytes up to rip, those from it on, and the bits of the code segment. Where not all are there,
-- the parts in rip's own page, or what ends before it.
local function code(cpu, rip)
  local bits, linear = M.place(cpu, rip)
  local before = LONGEST
  for _, most in ipairs { rip, linear } do
    if u64.lt(most, before) then before = u64.tonumber(most) end
  end
  local in_page = u64.tonumber(u64.mod(linear, PAGE))
  local head, tail = read(cpu, linear, before, LONGEST)
  if not head then
    head, tail = read(cpu, linear, math.min(before, in_page), math.min(LONGEST, PAGE - in_page))
  end
  if not head then head, tail = read(cpu, linear, before, 0) end
  return head, tail, bits
end

local function prefixes(bytes, bits)
  local found = { count = 0, segment = SEGMENT_DS }
  for i = 1, #bytes do
    local byte = bytes:byte(i)
    if overrides[byte] then
      found.segment = overrides[byte]
    elseif byte == 0x66 then
      found.operand = true
    elseif byte == 0x67 then
      found.address = true
    elseif byte == 0xf2 or byte == 0xf3 then
      found.repeats = true
    else
      if bits == 64 and byte - byte % 16 == 0x40 then i = i + 1 end -- REX
      found.count = i - 1
      return found
    end
  end
  found.count = #bytes
  return found
end

local other_width = { [16] = 32, [32] = 16, [64] = 32 }

-- The port instruction at the start of the bytes, or nil.
local function decode(bytes, bits)
  local found = prefixes(bytes, bits)
  local opcode = bytes:byte(found.count + 1)
  if not opcode then return nil end
  local group = opcode - opcode % 4
  if group ~= 0xe4 and group ~= 0xec and group ~= 0x6c then return nil end
  local immediate, string = group == 0xe4, group == 0x6c
  local wide = (bits == 16) == (found.operand or false) and 4 or 2
  local port = {
    length = found.count + (immediate and 2 or 1),
    size = opcode % 2 == 1 and wide or 1,
    access = has(opcode, 2) and "w" or "r",
    string = string, immediate = immediate, repeats = string and found.repeats or false,
    bits = found.address and other_width[bits] or bits,
    segment = has(opcode, 2) and found.segment or 0,
  }
  return port.length <= #bytes and port or nil
end

-- Whether it is the instruction of the exit; the bytes begin with it.
local function matches(cpu, exit, bytes, port)
  if port.size ~= exit.size or port.access ~= exit.access then return false end
  local number = port.immediate and bytes:byte(port.length)
    or u64.tonumber(u64.band(cpu.rdx, 0xffff))
  return number == exit.port
end

-- Of the ways to read the bytes before rip, a string instruction is taken with all its prefixes,
-- any other with as few as will do: only then do the prefixes make a difference.
local function find_before(cpu, exit, head, bits)
  local found
  for length = 1, #head do
    local bytes = head:sub(-length)
    local port = decode(bytes, bits)
    if port and port.length == length and matches(cpu, exit, bytes, port)
      and (not found or port.string) then
      found = port
    end
  end
  return found
end

--- The port instruction of the exit that ends at `rip`, or nil.
function M.before(cpu, exit, rip)
  local head, _, bits = code(cpu, rip)
  return head and find_before(cpu, exit, head, bits)
end

local function elements_left(cpu, port)
  local count = u64.band(cpu.rcx, u64.rshift(u64.bnot(0), 64 - port.bits))
  return count ~= u64.exact(0)
end

--- The port instruction of the exit around `rip`, and whether rip is behind it; nil where that
--- cannot be known. KVM leaves RIP at IN and INS, and at OUTS with elements left; whether it is at
--- or behind the last OUTS and OUT depends on how KVM came to emulate it.
function M.find(cpu, exit, rip)
  local head, tail, bits = code(cpu, rip)
  if not head then return nil end
  local at = decode(tail, bits)
  if at and not matches(cpu, exit, tail, at) then at = nil end
  if exit.access == "r" or at and at.repeats and elements_left(cpu, at) then return at, false end
  local behind = find_before(cpu, exit, head, bits)
  if at and behind then return nil end
  return at or behind, behind ~= nil
end

--- The length of a string instruction, MOVS and the like, at `rip`; 0 for any other.
function M.string_length(cpu, rip)
  local head, tail, bits = code(cpu, rip)
  if not head then return 0 end
  local count = prefixes(tail, bits).count
  local opcode = tail:byte(count + 1) or 0
  local string = opcode - opcode % 4 == 0xa4 or opcode >= 0xaa and opcode <= 0xaf
  return string and count + 1 or 0
end

return M
