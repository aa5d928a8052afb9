-- SPDX-License-Identifier: MIT
-- The symbols of an ELF file: those of .symtab, or of .dynsym where that was stripped.

local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local SHT_SYMTAB, SHT_STRTAB, SHT_DYNSYM = 2, 3, 11
local SECTION_TYPE, FILE_TYPE, TLS_TYPE = 3, 4, 6
local SHN_ABS = 0xfff1

local sections = {
  [32] = { size = 40, offset = 16, length = 20, link = 24 },
  [64] = { size = 64, offset = 24, length = 32, link = 40 },
}
local entries = {
  [32] = { size = 16, value = 4, length = 8, info = 12, section = 14 },
  [64] = { size = 24, value = 8, length = 16, info = 4, section = 6 },
}

local function number(image, bits, offset, field)
  if bits == 64 then return image:u64(offset, field) end
  return image:u32(offset, field)
end

-- A section that is a table of something: its place in the file, its length, its link.
local function section_at(image, bits, offset, index)
  local at = sections[bits]
  local function get(name)
    return number(image, bits, offset + at[name], ("sh_%s of section %d")
      :format(name == "length" and "size" or name, index))
  end
  local section = { index = index, at = offset, offset = get "offset", size = get "length",
    link = image:u32(offset + at.link, "sh_link") }
  image:need(section.offset, section.size, ("section %d"):format(index))
  return section
end

-- The offset of the table of sections, the size of one there and how many; nil for none.
local function section_table(image, bits, layout)
  local first = number(image, bits, layout.shoff, "e_shoff")
  local size = image:u16(layout.ehsize + 6, "e_shentsize")
  local count = image:u16(layout.ehsize + 8, "e_shnum")
  if first == 0 or count == 0 then return nil end
  if size ~= sections[bits].size then
    image:wrong("e_shentsize", layout.ehsize + 6, size, ("0x%x"):format(sections[bits].size))
  end
  image:need(first, count * size, "the table of sections")
  return first, size, count
end

-- The table of symbols and that of their names; nil where the file has none.
local function tables(image, bits, layout)
  local at = sections[bits]
  local first, size, count = section_table(image, bits, layout)
  if not first then return nil end
  local found
  for index = 0, count - 1 do
    local kind = image:u32(first + index * size + 4, "sh_type")
    if kind == SHT_SYMTAB or kind == SHT_DYNSYM and not found then
      found = section_at(image, bits, first + index * size, index)
      if kind == SHT_SYMTAB then break end
    end
  end
  if not found then return nil end
  if found.link >= count
    or image:u32(first + found.link * size + 4, "sh_type") ~= SHT_STRTAB then
    image:wrong(("sh_link of section %d"):format(found.index), found.at + at.link, found.link,
      "the number of a table of strings")
  end
  return found, section_at(image, bits, first + found.link * size, found.link)
end

-- The halves of an address, moved.
local function moved(image, bits, offset, shift)
  local low = image:u32(offset, "st_value")
  local high = bits == 64 and image:u32(offset + 4, "st_value") or 0
  if shift == 0 then return high, low end
  low = low + shift
  high = (high + math.floor(low / 2 ^ 32)) % 2 ^ 32
  return math.floor(high), math.floor(low % 2 ^ 32)
end

-- What names an address of code or data.
local function is_named(kind, section)
  return section ~= 0 and kind ~= SECTION_TYPE and kind ~= FILE_TYPE and kind ~= TLS_TYPE
end

local M = {}

--- Whether the file has a section of that name.
function M.has_section(image, bits, layout, name)
  local first, size, count = section_table(image, bits, layout)
  local names = image:u16(layout.ehsize + 10, "e_shstrndx")
  if not first or names >= count then return false end
  names = section_at(image, bits, first + names * size, names)
  local wanted = name .. "\0"
  for offset = first, first + (count - 1) * size, size do
    local at = names.offset + image:u32(offset, "sh_name")
    if image.bytes:sub(at + 1, at + #wanted) == wanted then return true end
  end
  return false
end

--- The symbols of the file as a set, the addresses moved by `shift`.
function M.read(image, bits, layout, shift)
  local list, found, names = {}, tables(image, bits, layout)
  if not found then return symbols.new(list) end
  local at = entries[bits]
  for offset = found.offset, found.offset + found.size - at.size, at.size do
    local name = image:u32(offset, "st_name")
    local kind = image:u8(offset + at.info, "st_info") % 16
    local section = image:u16(offset + at.section, "st_shndx")
    if name ~= 0 and is_named(kind, section) then
      if name >= names.size then
        image:wrong("st_name", offset, name, ("less than 0x%x, the size of its table of strings,")
          :format(names.size))
      end
      local text = image:text(names.offset + name, names.offset + names.size, "a symbol's name")
      local high, low = moved(image, bits, offset + at.value, section == SHN_ABS and 0 or shift)
      -- A size that is none, of a damaged symbol, is as good as unknown.
      local size = image:u32(offset + at.length, "st_size")
      if bits == 64 then size = size + image:u32(offset + at.length + 4, "st_size") * 2 ^ 32 end
      if text ~= "" then
        list[#list + 1] = { text, high, low, u64.exact(size) ~= nil and size or 0 }
      end
    end
  end
  return symbols.new(list)
end

return M
