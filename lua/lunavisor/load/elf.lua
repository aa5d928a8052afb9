-- SPDX-License-Identifier: MIT
-- ELF files for x86: their headers, where their segments go, relocation of position-independent
-- ones, their symbols.

local class = require "lunavisor.class"
local elf_lines = require "lunavisor.load.elf_lines"
local elf_symbol = require "lunavisor.load.elf_symbol"
local magic = require "lunavisor.load.magic"
local reader = require "lunavisor.load.reader"
local relocate = require "lunavisor.load.elf_relocate"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local M = {
  name = "elf", title = "an ELF executable",
  takes = { address = true, mode = true, relocate = true },
}

local ET_EXEC, ET_DYN = 2, 3
local EM_386, EM_X86_64 = 3, 62
local PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
local HEADERS_MOST = 256 -- program headers; linkers make about ten
local PAGE, STACK = 0x1000, 0x10000
local BASE = 0x200000 -- of a position-independent one

local types = { [0] = "a file of no type", "an object file, which is not linked", [4] = "a core" }

--- Offsets of the fields by class: 4-byte fields of 32-bit files are 8 bytes in 64-bit ones.
local layouts = {
  [32] = { header = 52, entry = 24, phoff = 28, shoff = 32, ehsize = 40,
    ph = { size = 32, offset = 4, vaddr = 8, paddr = 12, filesz = 16, memsz = 20, flags = 24 } },
  [64] = { header = 64, entry = 24, phoff = 32, shoff = 40, ehsize = 52,
    ph = { size = 56, flags = 4, offset = 8, vaddr = 16, paddr = 24, filesz = 32, memsz = 40 } },
}

local Elf = class.define(class.class "elf", {}, "image bits layout kind entry headers loads shift",
  "source")

function M.recognise(image)
  return image.bytes:sub(1, 4) == magic.ELF
end

-- A field as wide as the class says: as a u64, and as a number below 2^52.
local function wide(self, offset, field)
  if self.bits == 64 then return self.image:wide(offset, field) end
  return u64(self.image:u32(offset, field))
end

local function number(self, offset, field)
  if self.bits == 64 then return self.image:u64(offset, field) end
  return self.image:u32(offset, field)
end

local function check_ident(image)
  if image.bytes:sub(1, 4) ~= magic.ELF then
    image:wrong("e_ident", 0, reader.hex(image.bytes:sub(1, 4)), "7f 45 4c 46")
  end
  local bits = ({ 32, 64 })[image:u8(4, "EI_CLASS")]
  if not bits then image:wrong("EI_CLASS", 4, image:u8(4, "EI_CLASS"), "1 or 2 (32 or 64 bits)") end
  image.kind = "ELF" .. bits
  if image:u8(5, "EI_DATA") ~= 1 then
    image:wrong("EI_DATA", 5, image:u8(5, "EI_DATA"), "0x1 (little endian)", "unsupported")
  end
  return bits
end

local function check_header(self)
  local image = self.image
  image:need(0, self.layout.header, "the ELF header")
  local kind, machine = image:u16(16, "e_type"), image:u16(18, "e_machine")
  if machine ~= (self.bits == 64 and EM_X86_64 or EM_386) then
    image:wrong("e_machine", 18, machine, self.bits == 64 and "0x3e (x86-64)" or "0x3 (i386)",
      "unsupported")
  end
  if kind ~= ET_EXEC and kind ~= ET_DYN then
    image:wrong("e_type", 16, types[kind] or kind, "0x2 (executable) or 0x3 (position-independent)",
      types[kind] and "unsupported" or "format")
  end
  self.kind, self.entry = kind, wide(self, self.layout.entry, "e_entry")
end

local function program_header(self, offset, index)
  local at, image = self.layout.ph, self.image
  local function field(name)
    return ("p_%s of program header %d"):format(name, index), offset + at[name]
  end
  local function get(name)
    local what, where = field(name)
    return number(self, where, what)
  end
  local what, where = field "vaddr"
  local header = {
    index = index, type = image:u32(offset, "p_type"), at = offset,
    flags = image:u32(offset + at.flags, "p_flags"), vaddr = wide(self, where, what),
  }
  if header.type == PT_LOAD or header.type == PT_DYNAMIC or header.type == PT_NOTE
  then
    header.offset, header.filesz, header.memsz = get "offset", get "filesz", get "memsz"
    what = field "filesz"
    if header.filesz > 0 then
      image:need(header.offset, header.filesz, ("what %s counts"):format(what))
    end
  end
  if header.type == PT_LOAD then
    header.paddr = get "paddr"
    if header.filesz > header.memsz then
      what, where = field "filesz"
      image:wrong(what, where, header.filesz,
        ("at most p_memsz, %s,"):format(u64.hex(header.memsz)))
    end
  end
  return header
end

local function read_headers(self)
  local image, at = self.image, self.layout.ehsize
  local size, count = image:u16(at + 2, "e_phentsize"), image:u16(at + 4, "e_phnum")
  if count > HEADERS_MOST then
    image:wrong("e_phnum", at + 4, count, ("at most 0x%x"):format(HEADERS_MOST), "unsupported")
  end
  if count > 0 and size ~= self.layout.ph.size then
    image:wrong("e_phentsize", at + 2, size, ("0x%x"):format(self.layout.ph.size))
  end
  local offset = number(self, self.layout.phoff, "e_phoff")
  image:need(offset, count * size, "the table of program headers")
  for index = 0, count - 1 do
    local header = program_header(self, offset + index * size, index)
    self.headers[#self.headers + 1] = header
    if header.type == PT_LOAD and header.memsz > 0 then self.loads[#self.loads + 1] = header end
  end
  if #self.loads == 0 then
    image:wrong("e_phnum", at + 4, count, "a header of the type PT_LOAD, something to load,")
  end
end

--- Reads the headers of an image; refuses what is damaged.
function M.parse(image)
  local bits = check_ident(image)
  local self = setmetatable({
    image = image, bits = bits, layout = layouts[bits], headers = {}, loads = {}, shift = 0,
    source = false,
  }, Elf)
  check_header(self)
  read_headers(self)
  return self
end

--- The program header of that type, nil where there is none.
function M.header(self, kind)
  for _, header in ipairs(self.headers) do
    if header.type == kind then return header end
  end
end

-- ---- Places ----

-- Linkers that know nothing of physical addresses leave them 0.
local function has_physical(self)
  for _, header in ipairs(self.loads) do
    if header.paddr ~= 0 then return true end
  end
  return false
end

local function place_of(self, header, physical)
  if physical then return header.paddr end
  if not u64.lt(header.vaddr, 2 ^ 52) then
    self.image:wrong(("p_vaddr of program header %d"):format(header.index),
      header.at + self.layout.ph.vaddr, header.vaddr, "an address below 0x10000000000000")
  end
  return u64.tonumber(header.vaddr)
end

local function rights_of(flags)
  return (flags % 8 >= 4 and "r" or "-") .. (flags % 4 >= 2 and "w" or "-")
    .. (flags % 2 == 1 and "x" or "-")
end

-- How far a position-independent file is moved: its lowest page to options.address, or BASE.
local function shift_of(self, options)
  if self.kind ~= ET_DYN then
    if options.address then
      self.image:refuse("unsupported", "it is linked for its own addresses: address can be given "
        .. "for a position-independent one (-static-pie)")
    end
    return 0
  end
  local address, lowest = options.address or BASE, 2 ^ 52
  if address % PAGE ~= 0 then
    self.image:refuse("unsupported", "it cannot begin at 0x%x: a multiple of 0x1000 expected",
      address)
  end
  for _, header in ipairs(self.loads) do
    lowest = math.min(lowest, place_of(self, header, false))
  end
  return address - (lowest - lowest % PAGE)
end

--- Puts the segments into the plan: at their physical addresses, or shifted by options.address.
function M.place(self, plan, options)
  local physical = self.kind == ET_EXEC and has_physical(self)
  self.shift = shift_of(self, options)
  local data = relocate(self, options)
  for i, header in ipairs(self.loads) do
    header.gpa = place_of(self, header, physical) + self.shift
    plan:put(header.gpa, data[i], ("segment %d"):format(header.index), header.memsz,
      rights_of(header.flags))
  end
end

--- The guest-physical address of one in the file, which must be in a segment.
function M.physical(self, address, field, offset)
  for _, header in ipairs(self.loads) do
    local distance = address - header.vaddr
    if u64.lt(distance, header.memsz) then return header.gpa + u64.tonumber(distance) end
  end
  self.image:wrong(field, offset, address, "an address in a segment that is loaded")
end

--- The lowest address in memory.
function M.base(self)
  local lowest = 2 ^ 52
  for _, header in ipairs(self.loads) do lowest = math.min(lowest, header.gpa) end
  return lowest
end

--- The guest-physical address of the entry. Some files have a physical address there, as those of
--- multiboot may.
function M.entry(self)
  for _, header in ipairs(self.loads) do
    local distance = self.entry - u64(header.gpa)
    if not u64.lt(self.entry - header.vaddr, header.memsz) and u64.lt(distance, header.memsz) then
      return u64.tonumber(self.entry)
    end
  end
  return M.physical(self, self.entry, "e_entry", self.layout.entry)
end

--- The source lines, moved as the segments are; nil where the file has none, or is damaged. A file
--- is opened for them, and not read: early, so that it is the one that is loaded.
function M.lines(self)
  if not self.source then
    local has = reader.attempt(elf_symbol.has_section, self.image, self.bits, self.layout,
      ".debug_line")
    self.source = has and elf_lines.new(self) or nil
  end
  return self.source
end

--- The symbols, moved as the segments are, with the source lines.
function M.symbols(self)
  local set = elf_symbol.read(self.image, self.bits, self.layout, self.shift)
  symbols.add_lines(set, M.lines(self))
  return set
end

-- ---- As a format of its own ----

--- In 32-bit protected mode or 64-bit mode, by the class; options.mode = "user" is ring 3. The
--- stack has 64 KiB of free memory, with zeroes on top: no arguments to a C library.
function M.load(image, plan, options)
  local self = M.parse(image)
  if M.header(self, PT_INTERP) then
    image:wrong("p_type of program header " .. M.header(self, PT_INTERP).index,
      M.header(self, PT_INTERP).at, PT_INTERP, "no PT_INTERP (linked with -static)", "unsupported")
  end
  local mode = options.mode or (self.bits == 64 and "long" or "protected")
  local fits = mode == "protected"
  if self.bits == 64 then fits = mode == "long" or mode == "user" end
  if not fits then
    image:refuse("unsupported", "it cannot begin in mode %q: %s expected", mode,
      self.bits == 64 and "'long' or 'user'" or "'protected'")
  end
  M.place(self, plan, options)
  local stack = plan:place("", "the stack", { size = STACK, alignment = 0x1000, top = true })
  return {
    title = ("an ELF%d %s"):format(self.bits,
      self.kind == ET_DYN and "position-independent executable" or "executable"),
    entry = { mode = mode, rip = M.entry(self), rsp = stack + STACK - 0x100 },
    symbols = M.symbols(self),
  }
end

return M
