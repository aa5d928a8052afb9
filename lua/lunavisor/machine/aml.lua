-- SPDX-License-Identifier: MIT
-- What the ACPI tables of a machine say in AML (ACPI specification 1.0b, chapter 16): the sleep
-- state S5, and a PCI host bridge with its buses, ports, memory and interrupts.

local pack = require "lunavisor.text.pack"

local char = string.char
local le16, le32 = pack.le16, pack.le32

local M = {}

-- _S5: a package of four zeroes.
M.S5 = "\8_S5_\18\6\4\0\0\0\0"

-- A package length, which counts itself (16.2.4), and what it is of.
local function sized(bytes)
  local length = #bytes + 1
  if length < 64 then return char(length) .. bytes end
  length = length + 1
  return char(64 + length % 16, math.floor(length / 16)) .. bytes
end

-- Ranges as resources (6.4.3.5): of buses, ports or memory, none of which moves.
local function range16(kind, flags, first, last)
  return "\136\13\0" .. char(kind, 12, flags) .. le16(0) .. le16(first) .. le16(last) .. le16(0)
    .. le16(last - first + 1)
end

local function memory(first, last)
  return "\135\23\0\0\12\1" .. le32(0) .. le32(first) .. le32(last) .. le32(0)
    .. le32(last - first + 1)
end

-- Interrupt `irqs[n]`, 0 to 3, for pin INTA# to INTD# of each slot, in turn.
local function routes(irqs)
  local list = {}
  for slot = 0, 31 do
    for pin = 0, 3 do
      list[#list + 1] = "\18" .. sized("\4\12" .. le32(slot * 65536 + 0xffff) .. "\10" .. char(pin)
        .. "\0\10" .. char(irqs[(slot + pin) % 4]))
    end
  end
  return "\18" .. sized(char(#list) .. table.concat(list))
end

--- A host bridge with configuration mechanism 1, whose interrupts are those of `irqs`; PCI's memory
--- is the VGA's window and what is from `low` to the I/O APIC.
function M.host_bridge(irqs, low)
  local resources = range16(2, 0, 0, 255) .. "\71\1" .. le16(0xcf8) .. le16(0xcf8) .. "\1\8"
    .. range16(1, 3, 0, 0xcf7) .. range16(1, 3, 0xd00, 0xffff)
    .. memory(0xa0000, 0xbffff) .. memory(low, 0xfebfffff) .. "\121\0"
  local names = "PCI0\8_HID\12\65\208\10\3" -- PNP0A03
    .. "\8_CRS\17" .. sized("\10" .. char(#resources) .. resources) .. "\8_PRT" .. routes(irqs)
  return "\16" .. sized("\\_SB_\91\130" .. sized(names))
end

return M
