-- SPDX-License-Identifier: MIT
-- luna.load: what a file is, and its way into a VM's memory; each format has a file of its own.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local formats = require "lunavisor.load.formats"
local option = require "lunavisor.load.option"
local plans = require "lunavisor.load.plan"
local reader = require "lunavisor.load.reader"
local registers = require "lunavisor.vcpu.registers"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"
local vms = require "lunavisor.vm.vm"

-- ---- The image ----

local Loaded = class.define(class.class("loaded image", "image"), {},
  "format title name space segments entry symbols memory_map buffers")

--- "k.elf: an ELF64 executable, begins at 0x100000 in mode long", and a line for each segment.
function Loaded.__tostring(self)
  local lines = { ("%s: %s, begins at %s in mode %s"):format(self.name, self.title,
    u64.hex(self.entry.rip), self.entry.mode) }
  for _, segment in ipairs(self.segments) do
    lines[#lines + 1] = ("%012x-%012x %s %s"):format(segment.gpa, segment.gpa + segment.size,
      segment.rights, segment.name)
  end
  return table.concat(lines, "\n")
end

local function format_of(image, options)
  local format = options.format and formats.by_name[options.format] or formats.recognise(image)
  if format then return format end
  image:refuse("format", "it begins with %s, and is none of the formats %s: for a flat binary say "
    .. "format = 'flat'", image.size == 0 and "nothing" or reader.hex(image.bytes:sub(1, 16)),
    formats.names)
end

-- What another format would take is not passed over in silence.
local function check_taken(image, format, options)
  local name = option.not_taken(options, format.takes)
  if name then image:refuse("unsupported", "the option %s is not for this format", name) end
end

-- The mode that a vCPU is in.
local function mode_of(cpu)
  if u64.band(cpu.cr0, 1) == u64(0) then return "real" end
  if u64.band(cpu.efer, 0x400) == u64(0) then return "protected" end
  return u64.band(cpu.cs.selector, 3) == u64(0) and "long" or "user"
end

local function check_cpu(image, cpu, entry)
  if cpu.started then
    image:refuse("busy", "vCPU %d is started; join it first", cpu.id)
  end
  local mode = entry.mode == "reset" and "real" or entry.mode
  local now = mode_of(cpu)
  if now ~= mode then
    image:refuse("state", "it begins in mode %q, and vCPU %d is in mode %q: make one with "
      .. "vm:vcpu { mode = %q }, or with the entry of the image", entry.mode, cpu.id, now,
      entry.mode)
  end
end

local function segments_of(plan)
  local list = plan.taken
  table.sort(list, function(a, b) return a.gpa < b.gpa end)
  return list
end

local function load(source, options)
  local image = reader.open(source)
  local format = format_of(image, options)
  image.kind = format.title:gsub("^an? ", "")
  check_taken(image, format, options)
  local plan = plans.new(options.space, image.name)
  local found = format.load(image, plan, options)
  if options.cpu then check_cpu(image, options.cpu, found.entry) end
  plan:commit()
  if found.symbols and symbols.is_of_use(found.symbols) then
    options.space.vm.symbols = found.symbols
  end
  if options.cpu then registers.assign(options.cpu, found.entry) end
  return setmetatable({
    format = format.name, title = found.title or format.title, name = image.name,
    space = options.space, segments = segments_of(plan), entry = found.entry,
    symbols = found.symbols or symbols.new {}, memory_map = plan:memory_map(),
    buffers = plan:buffers(),
  }, Loaded)
end

local function conclude(ok, value)
  if ok then return value end
  local message, code = reader.refusal(value)
  if not message then error(value, 0) end
  return nil, "luna.load: " .. message, code
end

--- Puts an image into the memory of a VM, which must be mapped, and says how a vCPU begins there.
--- `image`: the name of a file, or { bytes = string, name = for messages }. Options:
---   format     what it is: "linux", "multiboot2", "multiboot", "pvh", "elf", "bios", "disk" or
---              "flat"; recognised in this order where nil, but for "flat"
---   space      where it goes, vm.default where nil
---   cpu        a vCPU of the mode that the image begins in, which is put to its entry
---   address    of a flat binary (0x1000 where nil), of a position-independent ELF file (2 MiB), of
---              a Linux kernel that can be moved
---   stack      RSP of a flat binary
---   mode       of a flat binary ("real" where nil); "user" for an ELF64 file in ring 3; which
---              entry of a Linux kernel: "long" where it has one, "protected", or "real", which
---              needs a BIOS
---   relocate   false: leaves the relocations of a position-independent ELF file to itself
---   drive      DL of a boot sector, 0 where it begins no more than 2.88 MB, else 0x80
---   command    the command line: linux, multiboot, multiboot2, pvh
---   initrd     an image, as the second argument: linux, pvh
---   modules    a list of images, with command = in their tables: multiboot, multiboot2, pvh
---   framebuffer what the kernel is told of the screen: "text", or { address =, width =, height =,
---              bits =, pitch = }: linux, multiboot, multiboot2
---   rsdp       where ACPI's tables begin: linux, pvh
--- Returns a table: format, title, name, space, segments (a list of { gpa, size, name, rights }),
--- entry (options for vm:vcpu), symbols, memory_map, buffers (that were made for read-only memory).
--- nil, message, code for what is damaged, unknown ("format"), for something else ("unsupported")
--- or has no place ("not_found", "busy"); then nothing was written. The thread that owns the VM.
return function(vm, image, options)
  check.object("luna.load", vm, vms.class)
  local source = option.source("luna.load: image", image)
  options = option.options(vm, options, formats.by_name, formats.names)
  return conclude(pcall(load, source, options))
end
