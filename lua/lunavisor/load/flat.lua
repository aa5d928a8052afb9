-- SPDX-License-Identifier: MIT
-- Images without a header: flat binaries, boot sectors with the disks they begin, BIOS images.

local reader = require "lunavisor.load.reader"

local M = {}

local REAL_CODE, REAL_DATA = 0x9b, 0x93 -- access rights: present, accessed, code or data
local SECTOR = 512
local BOOT_ADDRESS, BOOT_SIGNATURE = 0x7c00, 0xaa55
local FLOPPY_MOST = 2880 * 1024
local MIB, GIB4 = 2 ^ 20, 2 ^ 32

local function segment(selector, access)
  return { selector = selector, base = selector * 16, limit = 0xffff, access = access }
end

--- The segment registers of real mode: CS from `code`, the others from `data`.
function M.real_segments(code, data)
  local registers = { cs = segment(code, REAL_CODE) }
  for _, name in ipairs { "ds", "es", "fs", "gs", "ss" } do
    registers[name] = segment(data, REAL_DATA)
  end
  return registers
end

-- ---- A flat binary ----

M.flat = { name = "flat", title = "a flat binary", takes = {
  address = true, mode = true, stack = true } }

-- Nothing tells one: options.format has to.
function M.flat.recognise() return false end

--- At options.address, 0x1000 where nil; begins at its first byte, in options.mode, "real" where
--- nil, with RSP being options.stack.
function M.flat.load(image, plan, options)
  local address = options.address or 0x1000
  local mode = options.mode or "real"
  if image.size == 0 then image:refuse("format", "it is empty: at least one byte expected") end
  if mode == "real" and address > 0xffff then
    image:refuse("format", "real mode begins below 0x10000, and address is 0x%x: another mode "
      .. "expected", address)
  end
  plan:put(address, image.bytes, "the image", nil, "rwx")
  local registers = mode == "real" and M.real_segments(0, 0) or nil
  return { entry = { mode = mode, rip = address, rsp = options.stack, registers = registers } }
end

-- ---- A boot sector ----

M.disk = { name = "disk", title = "a boot sector", takes = { drive = true } }

function M.disk.recognise(image)
  return image.size >= SECTOR and image.size % SECTOR == 0
    and image:u16(SECTOR - 2, "the signature") == BOOT_SIGNATURE
end

--- The first sector at 0x7c00, as a BIOS does it; DL is options.drive, where nil 0 for what fits on
--- a floppy disk and 0x80 for more.
function M.disk.load(image, plan, options)
  if image.size % SECTOR ~= 0 or image.size == 0 then
    image:refuse("format", "it has 0x%x bytes: a multiple of 512 expected", image.size)
  end
  local signature = image:u16(SECTOR - 2, "the signature")
  if signature ~= BOOT_SIGNATURE then
    image:wrong("the signature", SECTOR - 2, signature, "0xaa55")
  end
  local sectors = image.size / SECTOR
  local drive = options.drive or (image.size <= FLOPPY_MOST and 0 or 0x80)
  plan:put(BOOT_ADDRESS, image.bytes:sub(1, SECTOR), "the boot sector", nil, "rwx")
  local registers = M.real_segments(0, 0)
  registers.rdx = drive
  return {
    title = sectors > 1 and ("a disk image of %d sectors"):format(sectors) or nil,
    entry = { mode = "real", rip = BOOT_ADDRESS, rsp = BOOT_ADDRESS, registers = registers },
  }
end

-- ---- A BIOS ----

M.bios = { name = "bios", title = "a BIOS image", takes = {} }

local BLOCK, BIOS_MOST = 0x10000, 16 * MIB
local jumps = { [0xea] = true, [0xe9] = true, [0xeb] = true }

-- The processor begins 16 bytes before the end: with a jump, maybe behind a few other instructions.
local function jump_of(image)
  for offset = image.size - 16, image.size - 9 do
    if jumps[image:u8(offset, "the reset vector")] then return offset end
  end
  return nil
end

function M.bios.recognise(image)
  return image.size > 0 and image.size % BLOCK == 0 and image.size <= BIOS_MOST
    and jump_of(image) ~= nil
end

--- Below 4 GiB, and its end below 1 MiB again; as read-only memory of its own where none is mapped.
function M.bios.load(image, plan)
  if image.size == 0 or image.size % BLOCK ~= 0 or image.size > BIOS_MOST then
    image:refuse("format", "it has 0x%x bytes: a multiple of 0x10000 up to 0x1000000 expected",
      image.size)
  end
  if not jump_of(image) then
    local bytes = image:part(image.size - 16, 16, "the reset vector")
    image:wrong("the reset vector", image.size - 16, reader.hex(bytes),
      "a jump in its first 8 bytes")
  end
  local low = math.min(image.size, 2 * BLOCK)
  plan:rom(image.bytes, {
    { gpa = GIB4 - image.size, offset = 0, size = image.size },
    { gpa = MIB - low, offset = image.size - low, size = low },
  }, "the BIOS")
  local registers = M.real_segments(0, 0)
  registers.cs = { selector = 0xf000, base = GIB4 - BLOCK, limit = 0xffff, access = REAL_CODE }
  return { entry = { mode = "reset", rip = 0xfff0, registers = registers } }
end

return M
