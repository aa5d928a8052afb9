---@meta lunavisor.load
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of luna.load, for editors. Programs load none of them; a spec compares them
-- with what there is.
error "annotations are not to be required"

---@alias luna.image_format
---| "linux" | "multiboot2" | "multiboot" | "pvh" | "elf" | "bios" | "disk" | "flat"
---The name of a file, or its bytes.
---@alias luna.image_source string|{ bytes: string, name: string? }

---@class luna.image_module
---@field file? string
---@field bytes? string
---@field name? string for messages
---@field command? string

---@class luna.framebuffer
---@field address integer
---@field width integer
---@field height integer
---@field bits? 15|16|24|32 32 where nil
---@field pitch? integer bytes from a line to the next

---@class luna.load_options
---@field format? luna.image_format recognised where nil, but for "flat"
---@field space? luna.space vm.default where nil
---@field cpu? luna.vcpu put to the entry
---@field address? integer flat; elf that is position-independent; linux
---@field stack? integer flat: RSP
---@field mode? "real"|"protected"|"long"|"user" flat, elf, linux
---@field relocate? boolean elf: false leaves relocations to the image
---@field drive? integer disk: DL
---@field command? string linux, multiboot, multiboot2, pvh: the command line
---@field initrd? luna.image_source linux, pvh
---@field modules? (string|luna.image_module)[] multiboot, multiboot2, pvh
---@field framebuffer? "text"|luna.framebuffer linux, multiboot, multiboot2
---@field rsdp? integer linux, pvh: address of ACPI's RSDP

---@class luna.image_segment
---@field gpa integer
---@field size integer
---@field name string
---@field rights string

---@class luna.memory_range
---@field gpa integer
---@field size integer
---@field type integer 1 RAM, 2 reserved

---@class luna.loaded_image
---@field format luna.image_format
---@field title string
---@field name string
---@field space luna.space
---@field segments luna.image_segment[] in order of address
---@field entry luna.vcpu_options
---@field symbols luna.symbols
---@field memory_map luna.memory_range[]
---@field buffers luna.buffer[] made for read-only memory

---A line of a source file; tostring gives "kernel.c:12".
---@class luna.source_line
---@field file string as the compiler was told, from the directory on that it was started in
---@field line integer
---@field column integer?
---@field path string of the file
---@field address luna.u64 the first of the line

---Names of addresses: symbols.main is that of main.
---@class luna.symbols
---@field [string] integer|luna.u64
local symbols = {}
---@param name string "main", or "kernel.c:12"
---@return integer|luna.u64|nil, string?, string?
function symbols:find(name) end
---@param address integer|luna.u64
---@return luna.source_line?, string?, string? nil, message, "not_found" where there is none
function symbols:line(address) end
---@param address integer|luna.u64
---@return string? name
---@return integer? distance
function symbols:at(address) end
---@param address integer|luna.u64
---@return string? "main" or "main+0x12"
function symbols:name(address) end
---@return { name: string, address: integer|luna.u64, size: integer }[] in order of address
function symbols:list() end

local luna = {}
---@param vm luna.vm
---@param image luna.image_source
---@param options? luna.load_options
---@return luna.loaded_image?, string?, string?
function luna.load(vm, image, options) end

return luna
