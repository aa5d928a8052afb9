-- SPDX-License-Identifier: MIT
-- A flash chip of 8 bits with the Common Flash Interface (JEDEC JESD68.01) and Intel's command set,
-- by the datasheet of the 28F320J3 (Numonyx, 208032), whose headings are in quotes. Options image,
-- read_only, copy: as disk.lua has them, an empty chip of `size` where there is none; block: bytes
-- that are erased at once; idle: its status without a bit of an error: 0x80, and 0 for OVMF, which
-- takes QEMU's chip for the only one.

local buffers = require "lunavisor.memory.buffer"
local check = require "lunavisor.check"
local device = require "lunavisor.device"
local disk = require "lunavisor.device.models.disk"
local values = require "lunavisor.device.bits"
local word = require "lunavisor.device.word"

local band, floor = word.band, math.floor
local MOST = 0x4000000 -- bytes of a chip
local BUFFER = 32      -- bytes of the write buffer

-- Bits of the "Status Register".
local ERASE, PROGRAM, LOCKED = 0x20, 0x10, 0x02

-- ---- What is read ----

-- "Common Flash Interface": the table, from address 0x10, and the extended one behind it.
local function query_of(size, block)
  local list = { "QRY\1\0\49\0\0\0\0\0", "\39\54\0\0\6\6\9\0\2\2\3\0" }
  local exponent = 0
  while 2 ^ exponent < size do exponent = exponent + 1 end
  local blocks = size / block - 1
  list[3] = string.char(exponent, 0, 0, 5, 0, 1, blocks % 256, floor(blocks / 256),
    floor(block / 256) % 256, floor(block / 65536))
  return ("\0"):rep(16) .. table.concat(list) .. "PRI11\10\0\0\0\0\1\0\0"
end

local function block_of(d, at) return floor(at / d.options.block) end

-- "Read Identifier Codes": maker, chip, and at the third address of each block its lock.
local function identify(d, at)
  local offset = at % d.options.block
  if offset == 2 then return d.locks[block_of(d, at)] and 1 or 0 end
  return offset == 0 and 0x89 or offset == 1 and 0x16 or 0
end

local reads = {
  array = function(d, at) return d.disk.buffer:u8(at) end,
  status = function(d) return d.status end,
  id = identify,
  query = function(d, at) return d.query:byte(at + 1) or 0 end,
}

-- What is read is plain memory while it is the array.
local function show(d, mode)
  d.mode = mode
  d:expose("main", mode == "array" and { buffer = d.disk.buffer, size = d.regions.main.size,
    rights = "r-x" } or false)
end

-- ---- Commands: "Command Definitions" ----

local function fail(d, bits) d.status = word.bor(d.status, bits) end

-- Whether a block can be changed; else the status says that it cannot.
local function writable(d, at, problem)
  if not d.disk.read_only and not d.locks[block_of(d, at)] then return true end
  fail(d, word.bor(problem, LOCKED))
  return false
end

-- "Program": bits become 0 alone.
local function program(d, at, byte)
  local buffer = d.disk.buffer
  if writable(d, at, PROGRAM) then buffer:u8(at, band(buffer:u8(at), byte)) end
end

local function erase(d, at)
  if writable(d, at, ERASE) then
    d.disk.buffer:fill(255, block_of(d, at) * d.options.block, d.options.block)
  end
end

-- "Write to Buffer": a count less one, so many bytes, and a confirmation.
local function fill_buffer(d, at, byte)
  if d.due < 0 then
    d.due = byte < BUFFER and byte + 1 or 0
    if d.due == 0 then fail(d, PROGRAM + ERASE) end
    return d.due > 0
  elseif d.due > 0 then
    d.taken[#d.taken + 1] = { at, byte }
    d.due = d.due - 1
    return true
  elseif byte == 0xd0 then
    for _, one in ipairs(d.taken) do program(d, one[1], one[2]) end
  else
    fail(d, PROGRAM + ERASE)
  end
  return false
end

local function locks(d, at, byte)
  if byte == 0x01 then
    d.locks[block_of(d, at)] = true
  elseif byte == 0xd0 then
    d.locks = {}
  else
    fail(d, PROGRAM + ERASE)
  end
end

-- The second cycles of commands, by their first one; those that give true have more.
local seconds = {
  [0x10] = program, [0x40] = program, [0x60] = locks, [0xe8] = fill_buffer,
  [0x20] = function(d, at, byte)
    if byte == 0xd0 then erase(d, at) else fail(d, PROGRAM + ERASE) end
  end,
}

local function begin(d, byte)
  if byte == 0xff then
    show(d, "array")
  elseif byte == 0x50 then
    d.status = d.options.idle
  elseif byte == 0x70 then
    show(d, "status")
  elseif byte == 0x90 then
    show(d, "id")
  elseif byte == 0x98 then
    show(d, "query")
  elseif seconds[byte] then
    d.command, d.due, d.taken = byte, -1, {}
    show(d, "status")
  end
end

local function cycle(d, at, byte)
  local second = seconds[d.command]
  if not second then return begin(d, byte) end
  if not second(d, at, byte) then d.command = 0 end
end

-- ---- The region: each byte of an access is a cycle of its own ----

local function read(d, offset, size)
  local get, limit, list = reads[d.mode], d.regions.main.size, {}
  for i = 1, size do
    local at = offset + i - 1
    list[i] = at < limit and get(d, at) or 255
  end
  return values.value(list, size)
end

local function write(d, offset, size, value)
  for i, byte in ipairs(values.bytes(value, size)) do
    local at = offset + i - 1
    if at < d.regions.main.size then cycle(d, at, byte) end
  end
end

local function empty(size)
  local buffer = assert(buffers.new { size = size })
  buffer:fill(255)
  return buffer
end

local function open(d, options)
  local block = check.size("cfi_flash: block", options.block, 4)
  local image = options.image or empty(check.size("cfi_flash: size", options.size, 4))
  local found = disk.new("cfi_flash", { image = image, copy = options.copy or nil,
    read_only = options.read_only or nil }, 4)
  local size = found.sectors * 512
  if block < 4096 or block % 4096 ~= 0 or size % block ~= 0 or size > MOST
    or size / block > 65536 then
    error(("cfi_flash: image: 0x%x bytes, and up to 64 MB in whole blocks of 0x%x, of whole pages, "
      .. "are expected"):format(size, block), 4)
  end
  d.options.block, d.disk, d.query = block, found, query_of(size, block)
  d.regions.main.size = size
end

return device "cfi_flash" {
  options = { image = false, read_only = false, copy = false, size = 0x20000,
    block = 0x1000, idle = 0x80 },
  regions = { main = { size = MOST, read = read, write = write } }, holds = "disk query",
  state = { mode = "array", status = 0x80, command = 0, due = 0, taken = {}, locks = {} },
  init = open,
  reset = function(d)
    d.status = d.options.idle
    show(d, "array")
  end,
  loaded = function(d) show(d, d.mode) end,
}
