-- SPDX-License-Identifier: MIT
-- luna.load: flat binaries, boot sectors, BIOS images, what is none of the formats, and what holds
-- for all: nothing is written where a load fails, the entry, the map of memory.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local machine, run = image.machine, image.run
local contains, refused = helper.contains, helper.refused

local function boot_sector(source)
  return helper.code(source .. "\ntimes 510 - ($ - $$) db 0\ndw 0xaa55", 16, 0x7c00)
end

helper.kvm("a flat binary", function()
  it("runs at 0x1000 in real mode where nothing is said", function()
    local vm = machine()
    local loaded = assert(luna.load(vm, { bytes = helper.code("mov ax, [cs:data]\nhlt\n"
      .. "data: dw 0x1234", 16, 0x1000), name = "a.bin" }, { format = "flat" }))
    assert.equal(luna.u64(0x1234), luna.u64.band(run(vm, loaded).rax, 0xffff))
    assert.equal("flat", loaded.format)
    assert.equal("a.bin: a flat binary, begins at 0x1000 in mode real\n"
      .. "000000001000-000000001007 rwx the image", tostring(loaded))
  end)

  it("runs elsewhere and in other modes", function()
    for mode, bits in pairs { protected = 32, long = 64 } do
      local vm = machine()
      local loaded = assert(luna.load(vm, { bytes = helper.code("mov eax, $\nhlt", bits, 0x12340) },
        { format = "flat", address = 0x12340, mode = mode, stack = 0x8000 }))
      local cpu = run(vm, loaded)
      assert.equal(luna.u64(0x12340), cpu.rax)
      assert.equal(luna.u64(0x8000), cpu.rsp)
    end
  end)

  it("is refused where it cannot be", function()
    local vm = machine()
    local function load(bytes, options)
      options.format = "flat"
      return luna.load(vm, { bytes = bytes }, options)
    end
    refused("format", "bytes: flat binary: it is empty: at least one byte expected", load("", {}))
    refused("format", "real mode begins below 0x10000, and address is 0x10000: another mode",
      load("x", { address = 0x10000 }))
    refused("not_found", "the image, 0x3ffff0 to 0x400004, needs memory, and nothing is mapped at "
      .. "0x400000: map a buffer there", load(("x"):rep(20), { address = 0x3ffff0, mode = "long" }))
    helper.raises("luna.load: stack: a whole number from 0 to",
      function() load("x", { stack = "high" }) end)
    refused("unsupported", "the option command is not for this format", load("x", { command = "" }))
  end)
end)

helper.kvm("a boot sector", function()
  it("runs at 0x7c00 with the drive in DL", function()
    local vm = machine()
    local sector = boot_sector "mov al, dl\nmov bx, sp\nhlt"
    local loaded = assert(luna.load(vm, { bytes = sector }))
    local cpu = run(vm, loaded)
    assert.equal("disk", loaded.format)
    assert.equal(luna.u64(0), luna.u64.band(cpu.rax, 0xff))
    assert.equal(luna.u64(0x7c00), luna.u64.band(cpu.rbx, 0xffff))
    assert.equal("a boot sector", loaded.title)
    loaded = assert(luna.load(vm, { bytes = sector }, { drive = 0x81 }))
    assert.equal(luna.u64(0x81), luna.u64.band(run(vm, loaded).rax, 0xff))
  end)

  it("is the first of a disk, of which no more is loaded", function()
    local vm, ram = machine()
    local disk = boot_sector "mov al, dl\nhlt" .. ("x"):rep(512 * 6000)
    local loaded = assert(luna.load(vm, { bytes = disk }))
    assert.equal("a disk image of 6001 sectors", loaded.title)
    assert.equal("\0", ram:read(0x7e00, 1))
    assert.equal(luna.u64(0x80), luna.u64.band(run(vm, loaded).rax, 0xff))
  end)

  it("is refused without its signature or cut", function()
    local vm = machine()
    local sector = boot_sector "hlt"
    refused("format", "the signature at offset 0x1fe is 0x0: 0xaa55 expected",
      luna.load(vm, { bytes = ("\0"):rep(512) }, { format = "disk" }))
    refused("format", "it has 0x1ff bytes: a multiple of 512 expected",
      luna.load(vm, { bytes = sector:sub(1, 511) }, { format = "disk" }))
  end)
end)

helper.kvm("a BIOS image", function()
  local function bios(size)
    local code = helper.code("mov ax, cs\nmov bx, [cs:0xfff4]\nhlt", 16, 0)
    local bytes = code .. ("\0"):rep(size - #code - 16) .. "\xea\0\0\0\xf0" .. "twelve bytes"
    return bytes:sub(1, size)
  end

  it("is read-only below 4 GiB, its end below 1 MiB too, and begins at reset", function()
    local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer "640K")
    assert(vm.default:map(ram, 0))
    local bytes = bios(0x20000)
    local loaded = assert(luna.load(vm, { bytes = bytes }))
    assert.equal("bios", loaded.format)
    for _, buffer in ipairs(loaded.buffers) do helper.keep(buffer) end
    assert.equal(bytes, vm.default:read(0xfffe0000, 0x20000))
    assert.equal(bytes, vm.default:read(0xe0000, 0x20000))
    assert.equal("r-x", vm.default:find(0xf0000).rights)
    local cpu = helper.keep(vm:vcpu(loaded.entry))
    assert.equal(luna.u64(0xffff0000), cpu.cs.base)
    assert.equal(luna.u64(0xfff0), cpu.rip)
  end)

  it("is written into memory that is mapped there", function()
    local vm, ram = machine()
    local bytes = bios(0x10000)
    local loaded = assert(luna.load(vm, { bytes = bytes }))
    for _, buffer in ipairs(loaded.buffers) do helper.keep(buffer) end
    assert.equal(bytes, ram:read(0xf0000, 0x10000))
    assert.equal(bytes, vm.default:read(0xffff0000, 0x10000))
  end)

  it("is refused without a reset vector, in odd sizes, or where its place is taken", function()
    local vm = machine "640K"
    refused("format", "the reset vector at offset 0xfff0 is 00 00 00 00 00 00 00 00 00 00 00 00 00 "
      .. "00 00 00: a jump in its first 8 bytes expected",
      luna.load(vm, { bytes = ("\0"):rep(0x10000) }, { format = "bios" }))
    refused("format", "it has 0x400 bytes: a multiple of 0x10000 up to 0x1000000 expected",
      luna.load(vm, { bytes = ("\0"):rep(0x400) }, { format = "bios" }))
    local other = helper.keep(luna.buffer "4K")
    assert(vm.default:map(other, 0xf8000))
    refused("not_found", "the BIOS, 0xf0000 to 0x100000, is mapped in part, and not at 0xf0000",
      luna.load(vm, { bytes = bios(0x10000) }))
    assert.is_nil(vm.default:find(0xffff0000))
  end)
end)

helper.kvm("luna.load", function()
  it("says of a file that is none of the formats how it begins", function()
    local vm = machine()
    refused("format", "bytes: image: it begins with 61 62 63, and is none of the formats linux, "
      .. "multiboot2, multiboot, pvh, elf, bios, disk, flat: for a flat binary say format = 'flat'",
      luna.load(vm, { bytes = "abc" }))
    refused("format", "it begins with nothing", luna.load(vm, { bytes = "" }))
  end)

  it("reads files, and says why it cannot", function()
    local vm = machine()
    local path = helper.file(boot_sector "hlt")
    contains(path .. ": a boot sector, begins at 0x7c00 in mode real",
      tostring(assert(luna.load(vm, path))))
    local value, message, code = luna.load(vm, "/no/such/file")
    refused("not_found", "luna.load: /no/such/file: it cannot be opened: No such file", value,
      message, code)
    refused("system", "/: it cannot be read: Is a directory", luna.load(vm, "/"))
  end)

  it("puts a vCPU of the right mode to the entry", function()
    local vm = machine()
    local cpu = helper.keep(vm:vcpu { mode = "real", rip = 0x500 })
    assert(luna.load(vm, { bytes = boot_sector "mov al, dl\nhlt" }, { cpu = cpu, drive = 7 }))
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    assert.equal(luna.u64(7), luna.u64.band(cpu.rax, 0xff))
  end)

  it("refuses a vCPU of another mode and writes nothing", function()
    local vm, ram = machine()
    local cpu = helper.keep(vm:vcpu { mode = "long", rip = 0x500 })
    refused("state", 'it begins in mode "real", and vCPU 0 is in mode "long": make one with '
      .. 'vm:vcpu { mode = "real" }', luna.load(vm, { bytes = boot_sector "hlt" }, { cpu = cpu }))
    assert.equal(("\0"):rep(512), ram:read(0x7c00, 512))
    assert.equal(luna.u64(0x500), cpu.rip)
  end)

  it("leaves the system area of a vCPU alone", function()
    local vm, ram = machine()
    helper.keep(vm:vcpu { mode = "long", system = 0x10000 })
    local before = ram:read(0, 0x20000)
    refused("busy", "the image, 0x1ffff to 0x20001, lies over the system area of vCPU 0, 0x10000 "
      .. "to 0x20000; put that elsewhere",
      luna.load(vm, { bytes = "xx" }, { format = "flat", address = 0x1ffff, mode = "long" }))
    assert.equal(before, ram:read(0, 0x20000))
  end)

  it("loads into another space", function()
    local vm = machine()
    local space, ram = helper.keep(vm:space()), helper.keep(luna.buffer "64K")
    assert(space:map(ram, 0x100000))
    local loaded = assert(luna.load(vm, { bytes = "abc" }, { format = "flat", space = space,
      address = 0x100010, mode = "protected" }))
    assert.equal(space, loaded.space)
    assert.equal("abc", ram:read(0x10, 3))
  end)

  it("tells the map of memory with the video memory and the BIOS reserved", function()
    local vm = machine()
    local rom = helper.keep(luna.buffer "64K")
    assert(vm.default:map(rom, 0xf00000, { rights = "r-x" }))
    local loaded = assert(luna.load(vm, { bytes = "x" }, { format = "flat" }))
    local lines = {}
    for i, range in ipairs(loaded.memory_map) do
      lines[i] = ("%x %x %d"):format(range.gpa, range.size, range.type)
    end
    assert.same({ "0 a0000 1", "a0000 60000 2", "100000 300000 1", "f00000 10000 2" }, lines)
  end)
end)
