-- SPDX-License-Identifier: MIT
-- Images made for the specs of luna.load, field by field: ELF files with segments, symbols,
-- relocations and notes, kernels with headers of multiboot and of Linux; and a VM to run them on.

local assert = require "luassert"
local luna = require "lunavisor"
local helper = require "spec.support.helper"

local M = {}

local function le(count)
  return function(value)
    local bytes = {}
    for i = 1, count do
      local byte = value % 0x100
      bytes[i], value = string.char(byte), (value - byte) / 0x100
    end
    return table.concat(bytes)
  end
end

local le16, le32, le64 = le(2), le(4), le(8)
M.le16, M.le32, M.le64 = le16, le32, le64

--- `bytes` with others in the place of those from `offset` on.
function M.patch(bytes, offset, other)
  return bytes:sub(1, offset) .. other .. bytes:sub(offset + #other + 1)
end

local function pad(bytes, alignment)
  return bytes .. ("\0"):rep(-#bytes % alignment)
end

-- ---- ELF ----

local PT = { load = 1, dynamic = 2, interp = 3, note = 4 }

local function program_header(bits, segment)
  local memsz = segment.memsz or #segment.data
  local kind, flags = le32(PT[segment.type or "load"]), le32(segment.flags or 7)
  if bits == 64 then
    return kind .. flags .. le64(segment.offset) .. le64(segment.vaddr or 0)
      .. le64(segment.paddr or segment.vaddr or 0) .. le64(#segment.data) .. le64(memsz)
      .. le64(0x1000)
  end
  return kind .. le32(segment.offset) .. le32(segment.vaddr or 0)
    .. le32(segment.paddr or segment.vaddr or 0) .. le32(#segment.data) .. le32(memsz) .. flags
    .. le32(0x1000)
end

local function section_header(bits, kind, offset, size, link)
  local word = bits == 64 and le64 or le32
  return le32(0) .. le32(kind) .. word(0) .. word(0) .. word(offset) .. word(size) .. le32(link)
    .. le32(0) .. word(1) .. word(0)
end

local function symbol_entry(bits, name, symbol)
  local info, section = string.char(symbol.info or 0x12), le16(symbol.section or 1)
  if bits == 64 then
    return le32(name) .. info .. "\0" .. section .. le64(symbol.value) .. le64(symbol.size or 0)
  end
  return le32(name) .. le32(symbol.value) .. le32(symbol.size or 0) .. info .. "\0" .. section
end

-- The sections of symbols, to lie at `offset`, and their headers.
local function symbol_sections(bits, list, offset)
  local names, entries = "\0", ("\0"):rep(bits == 64 and 24 or 16)
  for _, symbol in ipairs(list) do
    entries = entries .. symbol_entry(bits, #names, symbol)
    names = names .. symbol.name .. "\0"
  end
  return entries .. names, section_header(bits, 0, 0, 0, 0)
    .. section_header(bits, 2, offset, #entries, 2)
    .. section_header(bits, 3, offset + #entries, #names, 0)
end

--- An ELF file: options.bits (64), type (2, executable), machine, entry, segments (a list of
--- { data, vaddr, paddr, memsz, type, flags }, each at a page of the file), symbols (a list of
--- { name, value, size, info, section }); `front` is behind the program headers.
function M.elf(options)
  local bits = options.bits or 64
  local word = bits == 64 and le64 or le32
  local header_size, entry_size = bits == 64 and 64 or 52, bits == 64 and 56 or 32
  local segments, body, headers = options.segments, "", {}
  local first = 0x1000
  for i, segment in ipairs(segments) do
    segment.offset = first + #body
    body = pad(body .. segment.data, 16)
    headers[i] = program_header(bits, segment)
  end
  local sections, symbols_at = "", first + #body
  if options.symbols then
    local data
    data, sections = symbol_sections(bits, options.symbols, symbols_at)
    body = pad(body .. data, 8)
  end
  local header = "\127ELF" .. string.char(bits / 32, 1, 1) .. ("\0"):rep(9)
    .. le16(options.type or 2) .. le16(options.machine or (bits == 64 and 62 or 3)) .. le32(1)
    .. word(options.entry or 0) .. word(header_size)
    .. word(options.symbols and first + #body or 0) .. le32(0) .. le16(header_size)
    .. le16(entry_size) .. le16(#segments) .. le16(bits == 64 and 64 or 40)
    .. le16(options.symbols and 3 or 0) .. le16(0)
  local front = header .. table.concat(headers)
  local more = pad(front, 16) .. (options.front or "")
  return more .. ("\0"):rep(first - #more) .. body .. sections
end

--- A note of an ELF file.
function M.note(name, kind, data)
  return le32(#name) .. le32(#data) .. le32(kind) .. pad(name, 4) .. pad(data, 4)
end

-- ---- Multiboot ----

--- A header of multiboot: its flags, and what follows the checksum.
function M.multiboot(flags, fields)
  return le32(0x1badb002) .. le32(flags) .. le32((-0x1badb002 - flags) % 2 ^ 32) .. (fields or "")
end

--- A tag of multiboot 2.
function M.tag(kind, data, optional)
  return pad(le16(kind) .. le16(optional and 1 or 0) .. le32(8 + #data) .. data, 8)
end

--- A header of multiboot 2 with tags.
function M.multiboot2(tags)
  local body = tags .. M.tag(0, "")
  local size = 16 + #body
  return le32(0xe85250d6) .. le32(0) .. le32(size) .. le32((-0xe85250d6 - size) % 2 ^ 32) .. body
end

-- ---- Linux ----

--- A bzImage whose kernel is `code`: the 32-bit entry at its begin, the 64-bit one 0x200 behind.
--- `changes`: a list of { offset, bytes } of the header. The set-up code of one sector, `setup`, is
--- at offset 0x400.
function M.linux(code, changes, setup)
  code = pad(code, 16)
  local image = ("\0"):rep(0x400) .. pad(setup or "\xf4", 512)
  local fields = {
    { 0x1f1, "\2" }, { 0x1f4, le32(#code / 16) }, { 0x1fe, "\x55\xaa\xeb\x66HdrS" .. le16(0x20f) },
    { 0x211, "\1" }, { 0x214, le32(0x100000) }, { 0x22c, le32(0x7fffffff) },
    { 0x230, le32(0x1000) .. "\1\12" .. le16(1) .. le32(2047) },
    { 0x258, le64(0x100000) .. le32(0x4000) },
  }
  for _, list in ipairs { fields, changes or {} } do
    for _, field in ipairs(list) do image = M.patch(image, field[1], field[2]) end
  end
  return image .. code
end

-- ---- Running ----

--- A VM with memory at 0, and the memory; both are closed after the test.
function M.machine(size)
  local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer(size or "4M"))
  assert(vm.default:map(ram, 0))
  return vm, ram
end

--- Runs a loaded image on a new vCPU up to its HLT; the vCPU.
function M.run(vm, loaded)
  local cpu = helper.keep(vm:vcpu(loaded.entry))
  local exit = assert(cpu:run { timeout = 60 })
  assert.equal("hlt", exit.kind, tostring(exit))
  return cpu
end

return M
