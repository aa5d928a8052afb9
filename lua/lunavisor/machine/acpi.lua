-- SPDX-License-Identifier: MIT
-- The ACPI tables of a small PC: its processors, its IOAPIC and its fixed hardware (the model
-- acpi_pm), by the ACPI specification 1.0b. Its name space is in aml.lua.

local aml = require "lunavisor.machine.aml"
local pack = require "lunavisor.text.pack"

local le16, le32 = pack.le16, pack.le32

local M = {}

local SCI, SMI_COMMAND, ENABLE, DISABLE = 9, 0xb2, 0xf1, 0xf0
local IOAPIC, LAPIC = 0xfec00000, 0xfee00000

-- The byte that makes the sum of all 0.
local function checksum(bytes)
  local sum = 0
  for i = 1, #bytes do sum = sum + bytes:byte(i) end
  return string.char(-sum % 256)
end

local function sealed(bytes, offset)
  return bytes:sub(1, offset) .. checksum(bytes) .. bytes:sub(offset + 2)
end

local function table_of(signature, revision, body)
  return sealed(signature .. le32(36 + #body) .. string.char(revision) .. "\0LUNA  LUNAVISR"
    .. le32(1) .. "LUNA" .. le32(1) .. body, 9)
end

-- Processors, the IOAPIC, the timer's line at its input 2, and levels: the SCI and those of PCI.
local function madt(cpus, irqs)
  local parts = { le32(LAPIC), le32(1) }
  for id = 0, cpus - 1 do parts[#parts + 1] = "\0\8" .. string.char(id, id) .. le32(1) end
  parts[#parts + 1] = "\1\12" .. string.char(cpus, 0) .. le32(IOAPIC) .. le32(0)
  parts[#parts + 1] = "\2\10\0\0" .. le32(2) .. le16(0)
  for _, irq in ipairs { SCI, irqs[0], irqs[2] } do
    parts[#parts + 1] = "\2\10\0" .. string.char(irq) .. le32(irq) .. le16(0x0d)
  end
  return table_of("APIC", 1, table.concat(parts))
end

local function fadt(pm, facs, dsdt)
  return table_of("FACP", 1, table.concat {
    le32(facs), le32(dsdt), "\0\0", le16(SCI), le32(SMI_COMMAND), string.char(ENABLE, DISABLE),
    "\0\0", le32(pm), le32(0), le32(pm + 4), le32(0), le32(0), le32(pm + 8), le32(0), le32(0),
    "\4\2\0\4\0\0\0\0", le16(0xffff), le16(0xffff), le16(0), le16(0), "\0\0\0\0\0",
    le16(0), "\0", le32(0x35),
  })
end

local function facs()
  return "FACS" .. le32(64) .. ("\0"):rep(56)
end

--- The tables for so many processors, with the fixed hardware at port `pm`, to lie at `gpa`, a
--- multiple of 64: the RSDP is first. pci: { [0] = interrupts of INTA# to INTD# of slot 0, low =
--- where its memory begins } where there is a host bridge.
function M.tables(cpus, pm, gpa, pci)
  local blob, at = {}, gpa + 64
  local function put(bytes)
    local here = at
    blob[#blob + 1] = bytes .. ("\0"):rep(-#bytes % 64)
    at = at + #blob[#blob]
    return here
  end
  local control, names = put(facs()), put(table_of("DSDT", 1, aml.S5
    .. (pci and aml.host_bridge(pci, pci.low) or "")))
  local fixed, apics = put(fadt(pm, control, names)), put(madt(cpus, pci or {}))
  local root = put(table_of("RSDT", 1, le32(fixed) .. le32(apics)))
  local pointer = sealed("RSD PTR \0LUNA  \0" .. le32(root), 8)
  return pointer .. ("\0"):rep(64 - #pointer) .. table.concat(blob)
end

return M
