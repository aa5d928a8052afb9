-- SPDX-License-Identifier: MIT
-- Linux kernels by the x86 boot protocol (Documentation/arch/x86/boot.rst): the set-up header is
-- checked, the kernel, initrd, command line and zero page placed, one of the three entries taken.

local guest = require "lunavisor.load.guest"
local magic = require "lunavisor.load.magic"
local reader = require "lunavisor.load.reader"
local pack = require "lunavisor.text.pack"
local real = require "lunavisor.load.flat".real_segments

local le8, le16, le32, le64 = pack.le8, pack.le16, pack.le32, pack.le64

local M = {
  name = "linux", title = "a Linux kernel",
  takes = { command = true, initrd = true, mode = true, framebuffer = true, rsdp = true,
    address = true },
}

local SECTOR = 512
local HEADER = 0x1f1 -- of the set-up header in the image and in the zero page
local MIB = 2 ^ 20
local OLDEST = 0x202 -- the protocol: command lines anywhere
local UNKNOWN_LOADER = 0xff
local REAL_SIZE, REAL_STACK = 0x10000, 0xe000 -- of the real-mode code with stack and command line
local E820_MOST = 128
local BOOT_CODE, BOOT_DATA = 0x10, 0x18

local function has(flags, bit)
  return flags % (2 * bit) >= bit
end

function M.recognise(image)
  return image.size >= 0x206 and image.bytes:sub(0x203, 0x206) == magic.LINUX
end

-- ---- The header ----

-- Fields that a newer protocol brought, with what older ones mean.
local function newer(image, version, since, get, offset, field, default)
  if version < since then return default end
  return get(image, offset, field)
end

local function title_of(image, setup_size)
  local offset = image:u16(0x20e, "kernel_version")
  if offset == 0 or offset + SECTOR >= setup_size then return nil end
  local text = image.bytes:sub(offset + SECTOR + 1, offset + SECTOR + 64):match "^[%w%.%-%+~]+"
  return text and "Linux " .. text
end

local function read_header(image)
  image:need(0, 0x260, "the set-up header")
  if image.bytes:sub(0x203, 0x206) ~= "HdrS" then
    image:wrong("header", 0x202, reader.hex(image.bytes:sub(0x203, 0x206)), "48 64 72 53 (HdrS)")
  end
  local version = image:u16(0x206, "version")
  if version < OLDEST then
    image:wrong("version", 0x206, version, ("0x%x or newer"):format(OLDEST), "unsupported")
  end
  local flags, sectors = image:u8(0x211, "loadflags"), image:u8(HEADER, "setup_sects")
  if not has(flags, 1) then
    image:wrong("loadflags", 0x211, flags, "bit 0 (loaded high, a bzImage)", "unsupported")
  end
  local setup = ((sectors == 0 and 4 or sectors) + 1) * SECTOR
  if setup >= image.size then
    image:wrong("setup_sects", HEADER, sectors, ("a kernel behind it in 0x%x bytes"):format(
      image.size))
  end
  return {
    version = version, setup = setup, flags = flags, title = title_of(image, setup),
    alignment = newer(image, version, 0x205, image.u32, 0x230, "kernel_alignment", MIB),
    relocatable = newer(image, version, 0x205, image.u8, 0x234, "relocatable_kernel", 0) ~= 0,
    entries = newer(image, version, 0x20c, image.u16, 0x236, "xloadflags", 0),
    command_most = newer(image, version, 0x206, image.u32, 0x238, "cmdline_size", 255),
    initrd_most = newer(image, version, 0x203, image.u32, 0x22c, "initrd_addr_max", 0x37ffffff),
    preferred = newer(image, version, 0x20a, image.u64, 0x258, "pref_address", MIB),
    init_size = version >= 0x20a and image:u32(0x260, "init_size") or 0,
  }
end

local function check_header(image, header)
  if not header.relocatable then header.alignment = 0x1000 end -- the field is about moving
  local alignment = header.alignment
  if alignment == 0 or alignment % 0x1000 ~= 0 or alignment > 2 ^ 30 then
    image:wrong("kernel_alignment", 0x230, alignment, "a multiple of 0x1000 up to 0x40000000")
  end
  if header.version >= 0x204 then
    local size = image:u32(0x1f4, "syssize") * 16
    if header.setup + size - 15 > image.size then
      image:wrong("syssize", 0x1f4, size / 16, ("at most 0x%x, as the image has 0x%x bytes,")
        :format(math.ceil((image.size - header.setup) / 16), image.size))
    end
  end
end

-- ---- Places ----

-- The kernel and the memory that it needs before it can look for more.
local function place_kernel(image, plan, header, options)
  local kernel = image.bytes:sub(header.setup + 1)
  local size = math.max(header.init_size, #kernel)
  local gpa = options.address or header.preferred
  if options.address and not header.relocatable then
    image:wrong("relocatable_kernel", 0x234, 0, "0x1 for the option address", "unsupported")
  end
  if header.relocatable and gpa % header.alignment ~= 0 then
    image:wrong("kernel_alignment", 0x230, header.alignment,
      ("an address that is a multiple of it, not 0x%x,"):format(gpa), "unsupported")
  end
  local want = { size = size, alignment = header.alignment, low = gpa, high = 2 ^ 32 }
  local free = plan:find(want)
  if free ~= gpa and header.relocatable and not options.address then
    want.low = MIB
    gpa = plan:find(want) or gpa
  end
  plan:put(gpa, kernel, "the kernel", nil, "rwx")
  if size > #kernel then plan:take(gpa + #kernel, size - #kernel, "the kernel's own", "rwx") end
  return gpa
end

local function place_initrd(plan, header, options)
  if not options.initrd then return 0, 0 end
  local image = reader.open(options.initrd)
  if image.size == 0 then return 0, 0 end
  local gpa = plan:place(image.bytes, "the initrd, " .. image.name, {
    alignment = 0x1000, low = MIB, high = math.min(header.initrd_most + 1, 2 ^ 32), top = true,
  })
  return gpa, image.size
end

local function command_of(image, header, options)
  local command = options.command or ""
  if #command > header.command_most then
    image:refuse("unsupported", "its command line has at most 0x%x bytes, and command has 0x%x",
      header.command_most, #command)
  end
  return command .. "\0"
end

-- ---- The zero page ----

local function patch(page, fields)
  for _, field in ipairs(fields) do page = reader.patch(page, field[1], field[2]) end
  return page
end

-- struct screen_info of a framebuffer.
local function screen_fields(framebuffer)
  if not framebuffer then return {} end
  if framebuffer == "text" then
    return { { 0x06, le8(3) .. le8(80) }, { 0x0e, le8(25) .. le8(1) }, { 0x10, le16(16) } }
  end
  local it, colors = framebuffer, guest.colors(framebuffer.bits)
  local address, parts = it.address, {}
  for _, name in ipairs { "red", "green", "blue" } do
    parts[#parts + 1] = le8(colors[name][2]) .. le8(colors[name][1])
  end
  local rest = it.bits == 32 and le8(8) .. le8(24) or le16(0)
  return {
    { 0x0f, le8(0x23) }, { 0x12, le16(it.width) .. le16(it.height) .. le16(it.bits) },
    { 0x18, le32(address % 2 ^ 32) .. le32(math.ceil(it.pitch * it.height / 0x10000)) },
    { 0x24, le16(it.pitch % 0x10000) .. table.concat(parts) .. rest },
    { 0x36, le32(address >= 2 ^ 32 and 2 or 0) }, { 0x3a, le32(math.floor(address / 2 ^ 32)) },
  }
end

local function map_fields(image, plan)
  local map, parts = plan:memory_map(), {}
  if #map > E820_MOST then
    image:refuse("unsupported", "the memory map has %d ranges: at most %d expected", #map,
      E820_MOST)
  end
  for i, range in ipairs(map) do
    parts[i] = le64(range.gpa) .. le64(range.size) .. le32(range.type)
  end
  return { { 0x1e8, le8(#map) }, { 0x2d0, table.concat(parts) } }
end

-- What the loader writes into the header, as in the image or in the zero page.
local function loader_fields(header, at)
  local fields = { { 0x210, le8(UNKNOWN_LOADER) }, { 0x214, le32(at.kernel) },
    { 0x218, le32(at.initrd) .. le32(at.initrd_size) }, { 0x228, le32(at.command) } }
  if at.heap then
    local flags = header.flags + (has(header.flags, 0x80) and 0 or 0x80) -- the heap can be used
    fields[#fields + 1] = { 0x211, le8(flags) }
    fields[#fields + 1] = { 0x224, le16(at.heap) }
  end
  return fields
end

local function zero_page(image, plan, header, at, options)
  local last = math.min(0x202 + image:u8(0x201, "jump"), 0x290)
  local page = patch(("\0"):rep(0x1000), {
    { HEADER, image:part(HEADER, last - HEADER, "the set-up header") },
  })
  page = patch(page, loader_fields(header, at))
  page = patch(page, map_fields(image, plan))
  page = patch(page, screen_fields(options.framebuffer))
  return patch(page, { { 0x70, le64(options.rsdp or 0) } })
end

-- ---- Entries ----

local LOW = { low = 0x1000, high = 0xa0000 } -- where a loader leaves what it tells the kernel

local function low(size, alignment)
  return { size = size, alignment = alignment, low = LOW.low, high = LOW.high }
end

-- The real-mode code, which asks a BIOS for the rest.
local function enter_real(image, plan, header, at)
  local command = at.command_line
  if header.setup > REAL_STACK - 0x200 or REAL_STACK + #command > REAL_SIZE then
    image:refuse("unsupported", "its set-up code and the command line have 0x%x and 0x%x bytes: "
      .. "at most 0x%x and 0x%x expected", header.setup, #command, REAL_STACK - 0x200,
      REAL_SIZE - REAL_STACK)
  end
  local gpa = plan:place(function(gpa)
    at.command, at.heap = gpa + REAL_STACK, REAL_STACK - 0x200
    return patch(image.bytes:sub(1, header.setup), loader_fields(header, at))
      .. ("\0"):rep(REAL_STACK - header.setup) .. command
  end, "the set-up code", { size = REAL_SIZE, alignment = 0x1000, low = 0x10000, high = 0xa0000 })
  local segment = gpa / 16
  local registers = real(segment + 0x20, segment)
  return { mode = "real", rip = 0, rsp = REAL_STACK, registers = registers }
end

local function flat(access, selector)
  return { selector = selector, base = 0, limit = 0xffffffff, access = access }
end

local function flat_segments(code)
  local registers = { cs = flat(code, BOOT_CODE) }
  for _, name in ipairs { "ds", "es", "fs", "gs", "ss" } do
    registers[name] = flat(0xc093, BOOT_DATA)
  end
  return registers
end

local function enter_flat(image, plan, header, at, options, mode)
  at.command = plan:place(at.command_line, "the command line", low(#at.command_line, 16))
  local page = plan:place(zero_page(image, plan, header, at, options), "the zero page",
    low(0x1000, 0x1000))
  local registers = flat_segments(mode == "long" and 0xa09b or 0xc09b)
  registers.rsi, registers.rbp, registers.rdi, registers.rbx = page, 0, 0, 0
  return { mode = mode, rip = at.kernel + (mode == "long" and 0x200 or 0), registers = registers }
end

local function mode_of(image, header, options)
  local long = has(header.entries, 1)
  local mode = options.mode or (long and "long" or "protected")
  if mode == "user" then
    image:refuse("unsupported", "it cannot begin in mode 'user': 'real', 'protected' or 'long' "
      .. "expected")
  end
  if mode == "long" and not long then
    image:wrong("xloadflags", 0x236, header.entries, "bit 0 (a 64-bit entry) for mode 'long'",
      "unsupported")
  end
  return mode
end

--- In mode "long" where the kernel has a 64-bit entry, else "protected"; "real" by its set-up code,
--- which needs a BIOS.
function M.load(image, plan, options)
  local header = read_header(image)
  check_header(image, header)
  local mode = mode_of(image, header, options)
  local at = { command_line = command_of(image, header, options) }
  at.kernel = place_kernel(image, plan, header, options)
  at.initrd, at.initrd_size = place_initrd(plan, header, options)
  local entry
  if mode == "real" then
    entry = enter_real(image, plan, header, at)
  else
    entry = enter_flat(image, plan, header, at, options, mode)
  end
  return { title = header.title, entry = entry }
end

return M
