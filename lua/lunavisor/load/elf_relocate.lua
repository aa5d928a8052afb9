-- SPDX-License-Identifier: MIT
-- What the segments of an ELF file hold; of a position-independent one, with its relative
-- relocations done for the address where it is put.

local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"

local PT_DYNAMIC = 2
local DT_NULL, DT_RELA, DT_RELASZ, DT_REL, DT_RELSZ, DT_RELR = 0, 7, 8, 17, 18, 36
local R_NONE, R_RELATIVE = 0, 8 -- the same numbers for i386 and x86-64
local R_IRELATIVE = { [32] = 42, [64] = 37 } -- done by the program's own start, which can run code

-- The value of each tag of the dynamic segment.
local function dynamic_of(self, header)
  local image, tags = self.image, {}
  local size = self.bits / 4
  for offset = header.offset, header.offset + header.filesz - size, size do
    local get = self.bits == 64 and image.u64 or image.u32
    local tag = image:u32(offset, "d_tag")
    if tag == DT_NULL then break end
    if tag == DT_RELA or tag == DT_RELASZ or tag == DT_REL or tag == DT_RELSZ or tag == DT_RELR then
      tags[tag] = { at = offset, value = get(image, offset + size / 2, "d_val") }
    end
  end
  return tags
end

-- Which segment of the file holds `size` bytes at an address, and where in it they are.
local function locate(self, address, size)
  for i, header in ipairs(self.loads) do
    local distance = u64(address) - header.vaddr
    if u64.lt(distance, header.filesz) and u64.tonumber(distance) + size <= header.filesz then
      return i, u64.tonumber(distance)
    end
  end
end

-- Changes of a segment: { offset, bytes }, put in all at once.
local function apply(data, changes)
  table.sort(changes, function(a, b) return a[1] < b[1] end)
  local parts, at = {}, 0
  for _, change in ipairs(changes) do
    if change[1] >= at then
      parts[#parts + 1] = data:sub(at + 1, change[1])
      parts[#parts + 1] = change[2]
      at = change[1] + #change[2]
    end
  end
  parts[#parts + 1] = data:sub(at + 1)
  return table.concat(parts)
end

local function wide_bytes(value)
  return pack.le32(u64.tonumber(u64.band(value, 0xffffffff)))
    .. pack.le32(u64.tonumber(u64.rshift(value, 32)))
end

-- The relocated word of an entry; `addend` is where it is, in the table or in the segment.
local function relocated(self, addend)
  if self.bits == 64 then
    return wide_bytes(self.image:wide(addend, "r_addend") + u64(self.shift))
  end
  return pack.le32((self.image:u32(addend, "r_addend") + self.shift) % 2 ^ 32)
end

local function one(self, offset, explicit, changes)
  local image, word = self.image, self.bits / 8
  local kind = self.bits == 64 and image:u32(offset + 8, "r_info")
    or image:u8(offset + 4, "r_info")
  if kind == R_NONE or kind == R_IRELATIVE[self.bits] then return end
  if kind ~= R_RELATIVE then
    image:wrong("the type in r_info", offset + word, kind,
      "0x8 (RELATIVE), as static linking leaves alone,", "unsupported")
  end
  local get = self.bits == 64 and image.u64 or image.u32
  local address = get(image, offset, "r_offset")
  local i, inside = locate(self, address, word)
  if not i then
    image:wrong("r_offset", offset, address, "an address in a segment of the file")
  end
  local addend = explicit and offset + 2 * word or self.loads[i].offset + inside
  table.insert(changes[i], { inside, relocated(self, addend) })
end

local function table_of(self, tags, where, length, explicit, changes)
  if not tags[where] then return end
  local image, size = self.image, self.bits / 8 * (explicit and 3 or 2)
  local bytes = tags[length] and tags[length].value or 0
  local i, inside = locate(self, tags[where].value, bytes)
  if not i then
    image:wrong("the table of relocations in the dynamic segment", tags[where].at,
      tags[where].value, ("0x%x bytes in a segment of the file"):format(bytes))
  end
  local first = self.loads[i].offset + inside
  for offset = first, first + bytes - size, size do one(self, offset, explicit, changes) end
end

--- The bytes of each segment that is loaded, in their order. options.relocate = false: as they are
--- in the file, for programs that relocate themselves.
return function(self, options)
  local data, changes = {}, {}
  for i, header in ipairs(self.loads) do
    data[i] = header.filesz > 0 and self.image:part(header.offset, header.filesz, "a segment")
      or ""
    changes[i] = {}
  end
  local dynamic
  for _, header in ipairs(self.headers) do
    if header.type == PT_DYNAMIC then dynamic = header end
  end
  if self.shift == 0 or not dynamic or options.relocate == false then return data end
  local tags = dynamic_of(self, dynamic)
  if tags[DT_RELR] then
    self.image:wrong("d_tag of the dynamic segment", tags[DT_RELR].at, DT_RELR,
      "no packed relative relocations (-z nopack-relative-relocs)", "unsupported")
  end
  table_of(self, tags, DT_RELA, DT_RELASZ, true, changes)
  table_of(self, tags, DT_REL, DT_RELSZ, false, changes)
  for i in ipairs(data) do data[i] = apply(data[i], changes[i]) end
  return data
end
