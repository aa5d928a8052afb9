-- SPDX-License-Identifier: MIT
-- What a PC's firmware is told of the machine: CMOS memory, by which SeaBIOS and OVMF know how much
-- memory there is, and the items and files of the configuration device. And what a BIOS leaves in
-- memory for kernels that begin without one.

local pack = require "lunavisor.text.pack"
local word = require "lunavisor.device.word"

local le16, le32, le64 = pack.le16, pack.le32, pack.le64

local M = {}

local KIB, MIB = 2 ^ 10, 2 ^ 20
local HOLE = 0xc0000000
local SMP, MAX_CPUS, TIMER_AT_2 = 5, 0xf, 0x8002 -- items
local LOW = 640 -- KiB below the VGA's window

-- The byte of equipment: an FPU, a mouse, and how many floppy drives.
local function equipment(floppies)
  local count = (floppies[1] > 0 and 1 or 0) + (floppies[2] > 0 and 1 or 0)
  return 0x06 + (count > 0 and 1 + 0x40 * (count - 1) or 0)
end

--- Bytes of the clock's memory for so much of it: what is below 1 MiB, up to 64 MiB above it, up to
--- 3 GiB above 16 MiB, and above 4 GiB; and for the types of two floppy drives, 0 for none, where
--- nil none. Floppy disks boot first, then hard disks, then CDs.
function M.cmos(size, floppies)
  floppies = floppies or { 0, 0 }
  local low, any = math.min(size, HOLE), floppies[1] > 0 or floppies[2] > 0
  local ram = { [0x10] = floppies[1] * 16 + floppies[2], [0x14] = equipment(floppies),
    [0x38] = any and 0x30 or 0, [0x3d] = any and 0x21 or 0x32 }
  local function put(index, value, bytes)
    for i = 0, bytes - 1 do ram[index + i] = word.bits(value, 8 * i, 8) end
  end
  put(0x15, LOW, 2)
  put(0x17, math.min(0xffff, math.floor(math.max(0, low - MIB) / KIB)), 2)
  put(0x30, math.min(0xffff, math.floor(math.max(0, low - MIB) / KIB)), 2)
  put(0x34, math.min(0xffff, math.floor(math.max(0, low - 16 * MIB) / (64 * KIB))), 2)
  put(0x5b, math.floor((size - low) / (64 * KIB)), 3)
  return ram
end

--- The address and the bytes of the words of the BIOS's data area that kernels look into, among
--- them Xen and real-mode code, which put their own at the end of base memory: COM1, LPT1, no
--- extended data area, the equipment (an FPU, a serial port, the floppy drives, as cmos has them)
--- and KiB of base memory.
function M.data_area(size, floppies)
  local words = equipment(floppies) + 2 ^ 9
  return 0x400, le16(0x3f8) .. ("\0"):rep(14) .. le16(words) .. "\0"
    .. le16(math.min(LOW, math.floor(size / KIB)))
end

-- The file etc/e820: memory, but for the VGA's window and what is behind it.
local function e820(size)
  local low, parts = math.min(size, HOLE), {}
  local function range(first, length)
    if length > 0 then parts[#parts + 1] = le64(first) .. le64(length) .. le32(1) end
  end
  range(0, math.min(low, 0xa0000))
  range(MIB, low - MIB)
  range(2 ^ 32, size - low)
  return table.concat(parts)
end

--- Options of the model fw_cfg.
function M.config(size, cpus)
  return { files = { ["etc/e820"] = e820(size) },
    items = { [SMP] = le16(cpus), [MAX_CPUS] = le16(cpus), [TIMER_AT_2] = le32(1) } }
end

return M
