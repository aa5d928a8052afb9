-- SPDX-License-Identifier: MIT
-- Kernels with a header of the multiboot specification, version 0.6.96: ELF files, or flat ones
-- that say in the header where they go.

local elf = require "lunavisor.deferred" "lunavisor.load.elf"
local guest = require "lunavisor.load.guest"
local magic = require "lunavisor.load.magic"
local reader = require "lunavisor.load.reader"
local pack = require "lunavisor.text.pack"

local le8, le16, le32, le64 = pack.le8, pack.le16, pack.le32, pack.le64

local M = {
  name = "multiboot", title = "a multiboot kernel",
  takes = { command = true, modules = true, framebuffer = true },
}

local SEARCHED = 8192
local LOADED = 0x2badb002 -- in EAX
local HAS_VIDEO, HAS_ADDRESSES = 4, 0x10000 -- flags: bits 2 and 16
local KNOWN = 7 -- of the flags whose wishes must be granted, bits 0 to 15
local INFO_SIZE = 116
local INFO_MEMORY, INFO_COMMAND, INFO_MODULES, INFO_MAP = 1, 4, 8, 0x40
local INFO_LOADER, INFO_FRAMEBUFFER = 0x200, 0x1000

local function has(flags, bit)
  return flags % (2 * bit) >= bit
end

-- The offset of the header, or nil: its magic, flags and checksum add up to 0.
local function header_of(image)
  return image:find_header(magic.MULTIBOOT, SEARCHED, 4, 3)
end

function M.recognise(image)
  return header_of(image) ~= nil
end

--- Puts a flat kernel into the plan by its addresses: { header, load, load_end, bss_end }, and the
--- offset of the fields; `header` is that of the header. The ends are 0 where it does not say.
function M.place_flat(image, plan, at, fields, header)
  local first = header - (at.header - at.load)
  if at.load > at.header or first < 0 then
    image:wrong("load_addr", fields, at.load,
      ("an address from 0x%x to 0x%x, header_addr,"):format(math.max(0, at.header - header),
        at.header))
  end
  local load_end = at.load_end > 0 and at.load_end or at.load + image.size - first
  if load_end <= at.load then
    image:wrong("load_end_addr", fields + 4, load_end, ("an address above load_addr, 0x%x,")
      :format(at.load))
  end
  local bss_end = at.bss_end > 0 and at.bss_end or load_end
  if bss_end < load_end then
    image:wrong("bss_end_addr", fields + 8, bss_end, ("an address from load_end_addr, 0x%x, on")
      :format(load_end))
  end
  local data = image:part(first, load_end - at.load, "what load_addr and load_end_addr count")
  plan:put(at.load, data, "the kernel", bss_end - at.load, "rwx")
end

-- Puts the kernel into the plan; gives its entry and its ELF file, if it is one.
local function place_kernel(image, plan, header, flags, options)
  if not has(flags, HAS_ADDRESSES) then
    if not elf.recognise(image) then
      image:wrong("flags", header + 4, flags, "bit 16, addresses in the header, as it is no ELF "
        .. "file,")
    end
    local file = elf.parse(image)
    elf.place(file, plan, options)
    return elf.entry(file), file
  end
  image:need(header, 32, "the header with its addresses")
  local at = { header = image:u32(header + 12, "header_addr"),
    load = image:u32(header + 16, "load_addr"),
    load_end = image:u32(header + 20, "load_end_addr"),
    bss_end = image:u32(header + 24, "bss_end_addr") }
  M.place_flat(image, plan, at, header + 16, header)
  return image:u32(header + 28, "entry_addr")
end

local function wanted_video(image, header, flags)
  if not has(flags, HAS_VIDEO) then return nil end
  image:need(header, 48, "the header with its video mode")
  return {
    text = image:u32(header + 32, "mode_type") == 1,
    width = image:u32(header + 36, "width"), height = image:u32(header + 40, "height"),
    bits = image:u32(header + 44, "depth"),
  }
end

-- framebuffer_addr and what follows it.
local function framebuffer_bytes(framebuffer)
  if not framebuffer then return ("\0"):rep(INFO_SIZE - 88) end
  local text = framebuffer == "text"
  local it = text and guest.TEXT or framebuffer
  local colors = guest.colors(it.bits)
  local parts = { le64(it.address), le32(it.pitch), le32(it.width), le32(it.height), le8(it.bits),
    le8(text and 2 or 1) }
  for _, name in ipairs { "red", "green", "blue" } do
    parts[#parts + 1] = text and "\0\0" or le8(colors[name][1]) .. le8(colors[name][2])
  end
  return table.concat(parts)
end

local function map_bytes(plan)
  local parts = {}
  for i, range in ipairs(plan:memory_map()) do
    parts[i] = le32(20) .. le64(range.gpa) .. le64(range.size) .. le32(range.type)
  end
  return table.concat(parts)
end

local function module_bytes(blob, modules)
  local parts = {}
  for i, module in ipairs(modules) do
    parts[i] = le32(module.gpa) .. le32(module.gpa + module.size)
      .. le32(blob:add(module.command .. "\0")) .. le32(0)
  end
  return table.concat(parts)
end

-- The information structure and what it points to, at an address.
local function information(plan, options, modules, framebuffer)
  local lower, upper = plan:lower_upper()
  local map = map_bytes(plan)
  return function(gpa)
    local blob = reader.blob(gpa + INFO_SIZE)
    local flags = INFO_MEMORY + INFO_COMMAND + INFO_MAP + INFO_LOADER
      + (#modules > 0 and INFO_MODULES or 0) + (framebuffer and INFO_FRAMEBUFFER or 0)
    local command = blob:add((options.command or "") .. "\0")
    local list = module_bytes(blob, modules)
    local fields = {
      le32(flags), le32(lower), le32(upper), le32(0), le32(command), le32(#modules),
      le32(#modules > 0 and blob:add(list, 4) or 0), ("\0"):rep(16),
      le32(#map), le32(blob:add(map, 4)), le32(0), le32(0), le32(0),
      le32(blob:add(guest.NAME .. "\0")), le32(0), le32(0), le32(0), le16(0), le16(0), le16(0),
      le16(0), framebuffer_bytes(framebuffer),
    }
    return table.concat(fields) .. blob:bytes()
  end
end

--- In 32-bit protected mode, with the information structure's address in EBX.
function M.load(image, plan, options)
  local header = header_of(image)
  if not header then
    image:refuse("format", "it has no header in its first 0x%x bytes: 02 b0 ad 1b at a multiple "
      .. "of 4, with flags and a checksum behind it, expected", SEARCHED)
  end
  local flags = image:u32(header + 4, "flags")
  if flags % 0x10000 > KNOWN then
    image:wrong("flags", header + 4, flags, "bits 3 to 15 clear", "unsupported")
  end
  local wanted = wanted_video(image, header, flags)
  local framebuffer = guest.framebuffer(image, options, wanted, "flags", header + 4)
  local rip, file = place_kernel(image, plan, header, flags, options)
  local modules = guest.modules(plan, options.modules)
  local info = plan:place(information(plan, options, modules, framebuffer),
    "the multiboot information", { alignment = 8 })
  return {
    title = file and ("a multiboot kernel, ELF%d"):format(file.bits) or nil,
    entry = guest.entry(rip, LOADED, info), symbols = file and elf.symbols(file),
  }
end

return M
