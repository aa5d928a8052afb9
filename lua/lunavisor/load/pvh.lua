-- SPDX-License-Identifier: MIT
-- ELF kernels with a PVH entry: a note of Xen's says where 32-bit protected mode begins, with EBX
-- at a start_info structure.

local elf = require "lunavisor.load.elf"
local guest = require "lunavisor.load.guest"
local reader = require "lunavisor.load.reader"
local pack = require "lunavisor.text.pack"

local le32, le64 = pack.le32, pack.le64

local M = {
  name = "pvh", title = "a PVH kernel",
  takes = { command = true, modules = true, initrd = true, rsdp = true },
}

local PT_NOTE = 4
local PHYS32_ENTRY = 18 -- XEN_ELFNOTE_PHYS32_ENTRY
local MAGIC, INFO_SIZE = 0x336ec578, 56

-- The entry that one of the notes at [offset, last) says, or nil.
local function entry_in(image, offset, last)
  while offset + 12 <= last do
    local name_size = image:u32(offset, "n_namesz")
    local size, kind = image:u32(offset + 4, "n_descsz"), image:u32(offset + 8, "n_type")
    local data = offset + 12 + reader.align(name_size, 4)
    if data + size > last then
      image:wrong("n_descsz", offset + 4, size, ("a note that ends before 0x%x"):format(last))
    end
    if kind == PHYS32_ENTRY and image:part(offset + 12, name_size, "a note's name") == "Xen\0" then
      if size ~= 4 and size ~= 8 then
        image:wrong("n_descsz", offset + 4, size, "0x4 or 0x8, an address,")
      end
      return image:u32(data, "the PVH entry")
    end
    offset = reader.align(data + size, 4)
  end
end

local function entry_of(file)
  for _, header in ipairs(file.headers) do
    if header.type == PT_NOTE then
      local entry = entry_in(file.image, header.offset, header.offset + header.filesz)
      if entry then return entry end
    end
  end
end

-- A damaged ELF file is left to the loader of those, which says what is wrong.
function M.recognise(image)
  if not elf.recognise(image) then return false end
  return reader.attempt(function() return entry_of(elf.parse(image)) end) ~= nil
end

local function map_bytes(plan)
  local parts = {}
  for i, range in ipairs(plan:memory_map()) do
    parts[i] = le64(range.gpa) .. le64(range.size) .. le32(range.type) .. le32(0)
  end
  return table.concat(parts), #parts
end

local function information(plan, options, modules)
  local map, ranges = map_bytes(plan)
  return function(gpa)
    local blob, list = reader.blob(gpa + INFO_SIZE), {}
    local command = blob:add((options.command or "") .. "\0")
    for i, module in ipairs(modules) do
      list[i] = le64(module.gpa) .. le64(module.size) .. le64(blob:add(module.command .. "\0"))
        .. le64(0)
    end
    local first = #modules > 0 and blob:add(table.concat(list), 8) or 0
    return table.concat {
      le32(MAGIC), le32(1), le32(0), le32(#modules), le64(first), le64(command),
      le64(options.rsdp or 0), le64(blob:add(map, 8)), le32(ranges), le32(0), blob:bytes(),
    }
  end
end

--- In 32-bit protected mode; an initrd is the first module.
function M.load(image, plan, options)
  local file = elf.parse(image)
  local entry = entry_of(file)
  if not entry then
    image:refuse("format", "it has no PT_NOTE segment with a note of the name Xen and the type "
      .. "0x%x, the PVH entry: one expected", PHYS32_ENTRY)
  end
  elf.place(file, plan, options)
  local list = { options.initrd }
  for _, module in ipairs(options.modules or {}) do list[#list + 1] = module end
  local modules = guest.modules(plan, list)
  local info = plan:place(information(plan, options, modules), "the PVH start information",
    { alignment = 8 })
  return {
    title = ("a PVH kernel, ELF%d"):format(file.bits),
    entry = guest.entry(entry, 0, info), symbols = elf.symbols(file),
  }
end

return M
