-- SPDX-License-Identifier: MIT
-- Kernels with a header of the multiboot 2 specification: what its tags ask for, and the
-- information that they get.

local elf = require "lunavisor.load.elf"
local guest = require "lunavisor.load.guest"
local magic = require "lunavisor.load.magic"
local multiboot = require "lunavisor.load.multiboot"
local reader = require "lunavisor.load.reader"
local pack = require "lunavisor.text.pack"

local le8, le16, le32, le64 = pack.le8, pack.le16, pack.le32, pack.le64

local M = {
  name = "multiboot2", title = "a multiboot 2 kernel",
  takes = { command = true, modules = true, framebuffer = true },
}

local SEARCHED = 32768
local LOADED = 0x36d76289 -- in EAX
local I386 = 0

-- Tags of the information by their types, which the kernel may ask for.
local COMMAND, LOADER, MODULE, MEMORY, MAP, FRAMEBUFFER, LOAD_BASE = 1, 2, 3, 4, 6, 8, 21
local told = { [COMMAND] = true, [LOADER] = true, [MODULE] = true, [MEMORY] = true, [MAP] = true,
  [FRAMEBUFFER] = true, [LOAD_BASE] = true }

local function header_of(image)
  return image:find_header(magic.MULTIBOOT2, SEARCHED, 8, 4)
end

function M.recognise(image)
  return header_of(image) ~= nil
end

-- ---- The tags of the header ----

-- Each takes note of what it asks for in `wishes`.
local readers = {
  [1] = function(image, tag)
    for offset = tag.at + 8, tag.at + tag.size - 4, 4 do
      local kind = image:u32(offset, "mbi_tag_types")
      if not told[kind] and not tag.optional then
        image:wrong("mbi_tag_types", offset, kind, "a tag of the types 1, 2, 3, 4, 6, 8 and 21",
          "unsupported")
      end
    end
  end,
  [2] = function(image, tag, wishes)
    image:need(tag.at, 24, "the address tag")
    wishes.fields = tag.at + 12
    wishes.addresses = { header = image:u32(tag.at + 8, "header_addr"),
      load = image:u32(tag.at + 12, "load_addr"),
      load_end = image:u32(tag.at + 16, "load_end_addr"),
      bss_end = image:u32(tag.at + 20, "bss_end_addr") }
  end,
  [3] = function(image, tag, wishes) wishes.entry = image:u32(tag.at + 8, "entry_addr") end,
  [5] = function(image, tag, wishes)
    if tag.optional then return end
    wishes.video = { width = image:u32(tag.at + 8, "width"),
      height = image:u32(tag.at + 12, "height"), bits = image:u32(tag.at + 16, "depth") }
    wishes.video_at = tag.at
  end,
}
local granted = { [4] = true, [6] = true, [10] = true } -- a console, pages, a place of its own

local function read_tag(image, tag, wishes)
  local read = readers[tag.kind]
  if read then return read(image, tag, wishes) end
  if not granted[tag.kind] and not tag.optional then
    image:wrong("the type of a tag", tag.at, tag.kind, "1 to 6 or 10, or an optional tag,",
      "unsupported")
  end
end

local function wishes_of(image, header)
  local wishes, last = {}, header + image:u32(header + 8, "header_length")
  image:need(header, last - header, "what header_length counts")
  local at = header + 16
  while at + 8 <= last do
    local tag = { at = at, kind = image:u16(at, "the type of a tag"),
      optional = image:u16(at + 2, "the flags of a tag") % 2 == 1,
      size = image:u32(at + 4, "the size of a tag") }
    if tag.kind == 0 then return wishes end
    if tag.size < 8 or at + tag.size > last then
      image:wrong("the size of a tag", at + 4, tag.size,
        ("8 to 0x%x, the rest of the header,"):format(last - at))
    end
    read_tag(image, tag, wishes)
    at = reader.align(at + tag.size, 8)
  end
  image:wrong("header_length", header + 8, last - header, "a header with a tag of the type 0 last")
end

-- ---- The information ----

local function tag_of(kind, ...)
  local body = table.concat { ... }
  local bytes = le32(kind) .. le32(8 + #body) .. body
  return bytes .. ("\0"):rep(-#bytes % 8)
end

local function framebuffer_tag(framebuffer)
  local text = framebuffer == "text"
  local it = text and guest.TEXT or framebuffer
  local parts, colors = {}, guest.colors(it.bits)
  for _, name in ipairs { "red", "green", "blue" } do
    parts[#parts + 1] = text and "" or le8(colors[name][1]) .. le8(colors[name][2])
  end
  return tag_of(FRAMEBUFFER, le64(it.address), le32(it.pitch), le32(it.width), le32(it.height),
    le8(it.bits), le8(text and 2 or 1), le16(0), table.concat(parts))
end

local function map_tag(plan)
  local parts = {}
  for i, range in ipairs(plan:memory_map()) do
    parts[i] = le64(range.gpa) .. le64(range.size) .. le32(range.type) .. le32(0)
  end
  return tag_of(MAP, le32(24), le32(0), table.concat(parts))
end

local function information(plan, options, modules, framebuffer, base)
  local lower, upper = plan:lower_upper()
  local tags = { tag_of(COMMAND, options.command or "", "\0"), tag_of(LOADER, guest.NAME, "\0") }
  for _, module in ipairs(modules) do
    tags[#tags + 1] = tag_of(MODULE, le32(module.gpa), le32(module.gpa + module.size),
      module.command, "\0")
  end
  tags[#tags + 1] = tag_of(MEMORY, le32(lower), le32(upper)) .. map_tag(plan)
  if framebuffer then tags[#tags + 1] = framebuffer_tag(framebuffer) end
  tags[#tags + 1] = tag_of(LOAD_BASE, le32(base)) .. tag_of(0)
  local body = table.concat(tags)
  return le32(8 + #body) .. le32(0) .. body
end

local function place_kernel(image, plan, header, wishes, options)
  if wishes.addresses then
    multiboot.place_flat(image, plan, wishes.addresses, wishes.fields, header)
    if not wishes.entry then
      image:refuse("format", "its header has an address tag and no entry tag: both expected")
    end
    return wishes.entry, wishes.addresses.load
  end
  if not elf.recognise(image) then
    image:refuse("format", "its header has no address tag, and it is no ELF file: one of the two "
      .. "expected")
  end
  local file = elf.parse(image)
  elf.place(file, plan, options)
  return wishes.entry or elf.entry(file), elf.base(file), file
end

--- In 32-bit protected mode, with the information's address in EBX.
function M.load(image, plan, options)
  local header = header_of(image)
  if not header then
    image:refuse("format", "it has no header in its first 0x%x bytes: d6 50 52 e8 at a multiple "
      .. "of 8, with fields and a checksum behind it, expected", SEARCHED)
  end
  local architecture = image:u32(header + 4, "architecture")
  if architecture ~= I386 then
    image:wrong("architecture", header + 4, architecture, "0x0 (i386)", "unsupported")
  end
  local wishes = wishes_of(image, header)
  local framebuffer = guest.framebuffer(image, options, wishes.video, "a tag", wishes.video_at)
  local rip, base, file = place_kernel(image, plan, header, wishes, options)
  local modules = guest.modules(plan, options.modules)
  local info = plan:place(information(plan, options, modules, framebuffer, base),
    "the multiboot information", { alignment = 8 })
  return {
    title = file and ("a multiboot 2 kernel, ELF%d"):format(file.bits) or nil,
    entry = guest.entry(rip, LOADED, info), symbols = file and elf.symbols(file),
  }
end

return M
