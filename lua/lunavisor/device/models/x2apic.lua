-- SPDX-License-Identifier: MIT
-- A local APIC's MSRs: IA32_APIC_BASE, which switches it off, on and to x2APIC, and the registers
-- that it has then from 0x800 on. By SDM Vol. 3, 11.12, whose sections are cited.

local device = require "lunavisor.device"
local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"

local M = {}

local bits, band, floor = word.bits, word.band, math.floor

M.BASE, M.FIRST, M.LAST = 0x1b, 0x800, 0x8ff
local ICR, EOI, ESR, SELF_IPI = 0x30, 0x0b, 0x28, 0x3f
-- 11.12.9: destination, and what the ICR has below it; delivery status (bit 12) is ignored.
local ICR_RESERVED = 0xfff32000
local SEND_ILLEGAL = 0x20

--- Whether it is in x2APIC mode, and whether the page of its registers is there.
function M.is_on(d) return d.BASE.extended == 1 end
function M.has_page(d) return d.BASE.enabled == 1 and d.BASE.extended == 0 end

--- What LDR reads, which cannot be written: cluster and bit come of the number (11.12.10.2).
function M.logical_id(d)
  local id = d.options.id
  return floor(id / 16) % 0x10000 * 0x10000 + 2 ^ (id % 16)
end

-- ---- IA32_APIC_BASE (11.12.1 and 11.12.5) ----

local LOW, PAGE = u64(0xfff), u64("0xfffffffffffff000")

--- The address of the page, wherever it is (11.4.5).
function M.place(d) return u64.tonumber(u64.band(d.BASE.value, PAGE)) end

-- Off, xAPIC, x2APIC: not every change is allowed (figure 11-27).
local function set_base(d, value)
  if not u64.lt(value, 2 ^ d.options.physical) then return false end
  local low, now = u64.tonumber(u64.band(value, LOW)), d.BASE
  local enabled, extended = bits(low, 11), bits(low, 10)
  if band(low, 0x2ff) ~= 0 or extended > enabled or extended == 1 and not d.options.x2apic
    or now.extended == 1 and enabled == 1 and extended == 0
    or now.enabled == 0 and extended == 1 then
    return false
  end
  if enabled == 0 and now.enabled == 1 then
    d:reset(true) -- 11.4.3: as after power-up
  end
  d.BASE = value
  d.options.moved(d)
  d:update()
  return true
end

-- ---- Registers (table 11-6) ----

-- By number, the registers of the page that are MSRs too: { offset =, read =, write = whether it
-- can be, reserved = bits that are to be 0 }.
local registers

local HIDDEN = { APR = true, RRD = true, DFR = true, ICR_HIGH = true }
local READ_ONLY = { ID = true, LDR = true }

local function table_of(d)
  if registers then return registers end
  registers = {}
  for _, register in ipairs(device.layout(d).registers) do
    if register.at and not HIDDEN[register.name] then
      for i = 0, (register.count or 1) - 1 do
        local access = register.access
        registers[floor((register.at + i * (register.stride or 0)) / 16)] = {
          offset = register.at + i * (register.stride or 0), read = access ~= "wo",
          write = access ~= "ro" and access ~= "const" and not READ_ONLY[register.name],
          reserved = register.masks.reserved }
      end
    end
  end
  registers[ICR].reserved = ICR_RESERVED
  return registers
end

local function read_register(d, number)
  local register = table_of(d)[number]
  if not register or not register.read then return nil end
  if number == 0x02 then return u64(d.options.id) end
  if number == 0x0d then return u64(M.logical_id(d)) end
  local low = d:read(register.offset, 4)
  return number == ICR and u64(d.DESTINATION, low) or u64(low)
end

-- 11.12.11: as a fixed interrupt to itself by the ICR, which is not changed.
local function self_ipi(d, value, fail)
  if not u64.lt(value, 256) then return false end
  local vector = u64.tonumber(value)
  if vector < 16 then fail(d, SEND_ILLEGAL) else d:deliver { vector = vector, mode = 0 } end
  d:update()
  return true
end

-- 11.12.1.3: bits that are reserved are to be 0.
local function write_register(d, number, value, fail)
  if number == SELF_IPI then return self_ipi(d, value, fail) end
  local register = table_of(d)[number]
  if not register or not register.write then return false end
  local low = u64.tonumber(u64.band(value, 0xffffffff))
  local high = u64.tonumber(u64.rshift(value, 32))
  if band(low, register.reserved) ~= 0 or high ~= 0 and number ~= ICR
    or (number == EOI or number == ESR) and low ~= 0 then
    return false
  end
  if number == ICR then d.DESTINATION = high end
  d:write(register.offset, 4, low)
  return true
end

--- Reads an MSR: a u64; nil where that is a #GP (11.12.2, 11.12.3).
function M.read(d, msr)
  if msr == M.BASE then return d.BASE.value end
  if not M.is_on(d) or msr < M.FIRST or msr > M.LAST then return nil end
  return read_register(d, msr - M.FIRST)
end

--- Writes an MSR; false where that is a #GP. fail(d, bit) notes an error of the ESR.
function M.write(d, msr, value, fail)
  value = u64.exact(value)
  if msr == M.BASE then return set_base(d, value) end
  if not M.is_on(d) or msr < M.FIRST or msr > M.LAST then return false end
  return write_register(d, msr - M.FIRST, value, fail)
end

-- ---- Destinations (11.12.10) ----

--- Whether a destination means this one, which is in x2APIC mode. `wide`: it has 32 bits, as others
--- in that mode send it; else it has eight.
function M.is_meant(d, dest, logical, wide)
  if dest == (wide and 0xffffffff or 255) then return true end
  if not logical then return dest == d.options.id end
  local own = M.logical_id(d)
  return floor(dest / 0x10000) == floor(own / 0x10000)
    and band(dest % 0x10000, own % 0x10000) ~= 0
end

return M
