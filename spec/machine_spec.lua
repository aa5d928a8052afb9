-- SPDX-License-Identifier: MIT
-- luna.machine: kinds, parts and what is in their stead, options that are refused, what is left
-- where it fails, and what firmware and kernels are told of the machine.

local luna = require "lunavisor"
local device = require "lunavisor.device"
local firmware = require "lunavisor.machine.firmware"
local helper = require "spec.support.helper"
local contains = helper.contains

local MIB = 2 ^ 20

-- A machine that is closed after the test, with its memory.
local function machine(kind, options)
  local vm = assert(luna.machine(kind, options))
  helper.keep(vm.machine.ram)
  return helper.keep(vm)
end

-- The same with 32-bit code that begins at 1 MiB.
local function with_code(kind, source, options)
  options.memory = options.memory or "4M"
  options.image = { bytes = helper.code(source, 32, MIB), name = "code" }
  options.load = { format = "flat", mode = "protected", address = MIB }
  return machine(kind, options)
end

local function run(vm)
  local exit = assert(vm.vcpus[1]:run { timeout = 60 })
  assert.not_equal("timeout", exit.kind, tostring(exit))
  return exit
end

local function text_of(list)
  return function(text) list[#list + 1] = text end
end

-- The gate of vector 0x20, to code that begins with these bytes.
local function put_gate(vm, code)
  local ram, cpu = vm.machine.ram, vm.vcpus[1]
  local tick = ram:find(code, MIB)
  local selector = luna.u64.tonumber(cpu.cs.selector)
  ram:u32(0x108100, selector * 0x10000 + tick % 0x10000)
  ram:u32(0x108104, tick - tick % 0x10000 + 0x8e00)
end

local SAY = "mov dx, 0x3f8\n mov al, 'A'\n out dx, al\n out 0xe9, al\n mov eax, 3\n"
  .. "mov dx, 0xf4\n out dx, eax\n"

helper.kvm("a machine", function()
  for _, kind in ipairs { "pc", "microvm" } do
    it(kind .. " has a serial port and an end", function()
      local said = {}
      local vm = with_code(kind, SAY, { serial = text_of(said) })
      local exit = run(vm)
      assert.equal("stopped", exit.kind)
      assert.equal(3, exit.value)
      assert.equal("AA", table.concat(said))
      assert.equal(kind, vm.machine.kind)
      assert.equal("code", vm.machine.image.name)
      assert.equal(1, vm.machine.cpus)
    end)
  end

  it("bare has memory, no device, and no vCPU until there is what it runs", function()
    local vm = machine "bare"
    assert.equal(16 * MIB, vm.machine.ram.size)
    assert.equal(0, #vm.vcpus)
    assert.equal(0, #vm:devices())
    local cpu = assert(vm:vcpu { rip = 0x1000 })
    vm.machine.ram:write(0x1000, "\xe4\x10")
    assert.equal("pio", cpu:run({ timeout = 60 }).kind)
  end)

  it("has as many vCPUs as are asked for, of which the first begins", function()
    local vm = with_code("microvm", "hlt", { serial = false, cpus = 3 })
    assert.equal(3, #vm.vcpus)
    assert.equal(luna.u64(MIB), vm.vcpus[1].rip)
  end)

  it("is left without a part, and has others in its stead", function()
    local seen = {}
    local other = device "other" { width = 1, lines = { irq = true }, registers = {
      DATA = { at = 0, write = function(_, value) seen[#seen + 1] = value end } } }
    local mine = other { name = "mine", log = false }
    local vm = with_code("pc", "mov dx, 0x3f8\n mov al, 9\n out dx, al\n out 0xe9, al\n"
      .. "mov dx, 0xf4\n out dx, eax", { serial = false, devices = { com1 = mine,
        console = other, vga = false, rtc = false, keyboard = { pace = 0 } } })
    run(vm)
    assert.same({ 9, 9 }, seen)
    assert.equal(mine, vm.devices.com1)
    assert.equal("com1", mine.name)
    assert.equal(0, vm.devices.keyboard.options.pace)
    assert.has_error(function() return vm.devices.rtc end)
  end)

  it("names the nearest part, and says of options what their model says", function()
    local function refuses(message, options)
      local ok, problem = pcall(function() luna.machine("pc", options) end)
      assert.is_false(ok)
      contains(message, problem)
      contains("machine_spec.lua:", problem)
    end
    refuses("luna.machine pc: devices: it has no part 'com'; did you mean 'com1'?",
      { devices = { com = false } })
    refuses("devices: vga: a device of the kit, a table of options, or false expected, got number",
      { devices = { vga = 5 } })
    refuses("devices: com1: device uart16550: unknown option 'outptu'; did you mean 'output'?",
      { devices = { com1 = { outptu = 1 } } })
    refuses("devices: it has no part 'usb'; its parts are a20, com1, console, debug, debug_exit, ",
      { devices = { usb = false } })
    refuses("irqchip: one of 'kernel', 'pic' expected, got \"split\"", { irqchip = "split" })
    refuses("with irqchip = 'pic' there is one vCPU", { irqchip = "pic", cpus = 2 })
    refuses("an image or a bios expected, not both", { bios = "x", image = "x" })
    refuses("luna.machine pc: cpus: a whole number from 1 to 0x40 expected, got 0", { cpus = 0 })
    refuses("luna.machine pc: accel: 'auto', 'kvm' or 'soft' expected", { accel = "kvmm" })
    refuses("luna.machine pc: devices: a table by name expected, got string", { devices = "" })
    refuses("luna.machine pc: load: a table of options of luna.load expected", { load = "" })
    helper.clean() -- nothing of them is left
  end)

  it("is not there where its image cannot be loaded", function()
    local vm, message, code = luna.machine("pc", { image = "/nowhere", serial = false })
    assert.is_nil(vm)
    contains("luna.load: /nowhere: it cannot be opened", message)
    assert.equal("not_found", code)
    helper.clean()
  end)

  it("is not there where its disk is not", function()
    for _, disk in ipairs { "/nowhere", { image = "/nowhere", read_only = true } } do
      for _, name in ipairs { "disk", "floppy" } do
        local vm, message, code = luna.machine("pc", { [name] = disk, serial = false })
        assert.is_nil(vm)
        contains(("luna.machine pc: %s: /nowhere: No such file"):format(name), message)
        assert.equal("not_found", code)
        helper.clean()
      end
    end
  end)

  it("ends where the guest turns the power off or resets it", function()
    local function ends(source)
      return run(with_code("pc", source, { serial = false })).value
    end
    assert.equal("off", ends "mov dx, 0x604\n mov ax, 0x2000\n out dx, ax\n hlt")
    assert.equal("reset", ends "mov al, 1\n out 0x92, al\n hlt")
    assert.equal("reset", ends "mov al, 0xfe\n out 0x64, al\n hlt")
    assert.equal("reset", ends "mov dx, 0xcf9\n mov al, 6\n out dx, al\n hlt")
  end)

  it("has ACPI's tables where kernels look for them, and no hole in its memory", function()
    local vm = machine("pc", { memory = "4M", cpus = 2, serial = false })
    assert.equal("RSD PTR ", vm.default:read(0xe0000, 8))
    local without = machine("pc", { memory = "4M", serial = false, acpi = false })
    assert.equal(("\0"):rep(8), without.default:read(0xe0000, 8))
  end)

  it("leads the timer's line to where ACPI's tables say that it is", function()
    local vm = with_code("pc", [[
      mov esp, 0x9000
      lidt [idt]
      mov dword [0xfee000f0], 0x1ff ; the LAPIC is enabled
      mov al, 0xff
      out 0x21, al
      mov dword [0xfec00000], 0x14  ; input 2
      mov dword [0xfec00010], 0x20  ; vector 20h, edges
      mov al, 0x34                  ; counter 0, mode 2
      out 0x43, al
      mov al, 0
      out 0x40, al
      mov al, 4
      out 0x40, al
      sti
      jmp $
      tick:
      mov eax, 6
      mov dx, 0xf4
      out dx, eax
      idt: dw 0x40 * 8 - 1
      dd 0x108000]], { serial = false })
    put_gate(vm, "\xb8\6\0\0\0")
    assert.equal(6, run(vm).value)
  end)

  it("leaves for kernels what a BIOS leaves in its data area", function()
    local function area(options)
      options.serial, options.memory = false, options.memory or "4M"
      return machine("pc", options).machine.ram
    end
    local ram = area {}
    assert.equal(0x3f8, ram:u16(0x400))
    assert.equal(0, ram:u16(0x40e))
    assert.equal(0x206, ram:u16(0x410))
    assert.equal(640, ram:u16(0x413))
    assert.equal(512, area { memory = "512K" }:u16(0x413))
    assert.equal(0x207, area { devices = { floppy = { drive0 = { image = false } } } }:u16(0x410))
    assert.equal(0, area { bios = { bytes = ("\xeb\xfe"):rep(0x8000), name = "bios" } }:u16(0x413))
  end)

  it("has a PIT and interrupt controllers in Lua where that is asked for", function()
    local vm = with_code("pc", [[
      mov esp, 0x9000
      lidt [idt]
      mov al, 0x11
      out 0x20, al
      mov al, 0x20
      out 0x21, al
      mov al, 4
      out 0x21, al
      mov al, 1
      out 0x21, al
      mov al, 0xfe                  ; the timer alone
      out 0x21, al
      mov al, 0x34                  ; counter 0, mode 2
      out 0x43, al
      mov al, 0
      out 0x40, al
      mov al, 4
      out 0x40, al
      sti
      jmp $
      tick:
      mov eax, 5
      mov dx, 0xf4
      out dx, eax
      idt: dw 0x40 * 8 - 1
      dd 0x108000]], { irqchip = "pic", serial = false })
    put_gate(vm, "\xb8\5\0\0\0")
    local exit = run(vm)
    assert.equal(5, exit.value, tostring(exit))
    vm.vcpus[1].rip = luna.u64(MIB)
    exit = assert(vm:run { timeout = 60 }) -- the vCPU has a thread, which the timer comes into
    assert.equal("stopped", exit.kind, tostring(exit))
    assert.equal(5, exit.value, tostring(exit))
  end)

  it("goes by a clock of the script's, which stands while the guest runs, or goes on as it looks",
    function()
      local function ticks(watched)
        local clock = device.clock()
        local vm = with_code("pc", [[
          mov al, 0x34                ; counter 0, mode 2, from 0xffff on
          out 0x43, al
          mov al, 0xff
          out 0x40, al
          out 0x40, al
          mov al, 0                   ; latch it
          out 0x43, al
          in al, 0x40
          mov bl, al
          in al, 0x40
          mov bh, al
          mov eax, 0xffff
          sub ax, bx
          mov dx, 0xf4
          out dx, eax]], { serial = false, irqchip = "pic", clock = clock })
        if watched then vm:watch(function() clock:advance(1e-5) end) end
        return run(vm).value
      end
      assert.equal(0, ticks(false))
      assert.equal(11, ticks(true))
    end)

  it("has port 0x61 with a PIT of the accelerator's too", function()
    local vm = with_code("pc", [[
      mov al, 3                     ; counter 2 runs, and is heard
      out 0x61, al
      in al, 0x61
      and eax, 0xf
      mov dx, 0xf4
      out dx, al]], { serial = false })
    assert.equal(3, run(vm).value)
    assert.equal("", tostring(vm:unknown()))
  end)

  it("reads a floppy disk by DMA, without firmware before it", function()
    local disk = helper.keep(luna.buffer "1440K")
    disk:write(4 * 512, "\42")
    local vm = with_code("pc", [[
      cld
      mov esi, bytes
      next: lodsw
      movzx edx, ax
      lodsb
      out dx, al
      cmp esi, bytes.end
      jb next
      mov edx, 0x3f4
      waiting: in al, dx
      and al, 0xc0
      cmp al, 0xc0                  ; a result
      jne waiting
      mov al, [0x4000]
      movzx eax, al
      mov edx, 0xf4
      out dx, eax
      %macro put 2-*
        %assign port %1
        %rep %0 - 1
          %rotate 1
          dw port
          db %1
        %endrep
      %endmacro
      bytes:
      put 0x0b, 0x46
      put 0x04, 0x00, 0x40
      put 0x81, 0x00
      put 0x05, 0xff, 0x01
      put 0x0a, 0x02
      put 0x3f2, 0x1c
      put 0x3f7, 0x00
      put 0x3f5, 0xe6, 0, 0, 0, 5, 2, 18, 27, 255
      .end:]], { floppy = disk, serial = false })
    assert.equal(42, run(vm).value)
    assert.equal(4, vm.devices.floppy:drive_type(0))
    assert.is_true(vm.devices.floppy.lines.irq)
  end)

  it("has a floppy controller and DMA where that is asked for, or one of them", function()
    local function parts(options)
      options.memory, options.serial = "4M", false
      local vm = machine("pc", options)
      local text = vm:machine_text()
      return { dma = text:find("\n  dma (i8237)", 1, true) ~= nil,
        floppy = text:find("\n  floppy (i82077)", 1, true) ~= nil,
        drives = vm.devices.rtc:byte(0x10) }
    end
    local empty = { drive0 = { image = false } }
    assert.same({ dma = false, floppy = false, drives = 0 }, parts {})
    assert.same({ dma = true, floppy = true, drives = 0x40 },
      parts { devices = { floppy = empty } })
    assert.same({ dma = false, floppy = true, drives = 0x40 },
      parts { devices = { floppy = empty, dma = false } })
    assert.same({ dma = true, floppy = false, drives = 0 },
      parts { devices = { floppy = false, dma = {} } })
    assert.same({ dma = true, floppy = true, drives = 0x05 },
      parts { devices = { floppy = { drive1 = { image = false, drive = "2.88M" } } } })
  end)

  it("shows itself as a text", function()
    local vm = machine("pc", { memory = "4M", serial = false })
    local text = vm:machine_text()
    for _, line in ipairs { "pc on ", "\nvCPUs: 0\n", "\n  000000000000-0000000a0000 rwx",
      "\n  com1 (uart16550)\n    port 0x3f8..0x3ff\n    irq -> vm line 4\n",
      "\n    inta -> piix3.inputs.pirqd\n", "\n    slot 2, function 0: vga\n",
      "\n  vga (vga)\n" } do
      contains(line, text)
    end
    contains("vm on ", helper.keep(luna.vm()):machine_text())
    assert.equal("machine pc (1 vCPU, 4194304 bytes of memory)", tostring(vm.machine))
  end)
end)

describe("what firmware is told", function()
  local function word(ram, index, count)
    local value = 0
    for i = count - 1, 0, -1 do value = value * 256 + ram[index + i] end
    return value
  end

  it("is how much memory there is", function()
    local small, large = firmware.cmos(16 * MIB), firmware.cmos(5 * 1024 * MIB)
    assert.equal(15 * 1024, word(small, 0x30, 2))
    assert.equal(0, word(small, 0x34, 2))
    assert.equal(0xffff, word(large, 0x30, 2))
    assert.equal((3072 - 16) * 16, word(large, 0x34, 2))
    assert.equal(2048 * 16, word(large, 0x5b, 3))
  end)

  it("is which floppy drives there are, and that their disks boot first", function()
    local function told(...)
      local ram = firmware.cmos(16 * MIB, { ... })
      return ("%02x %02x %02x %02x"):format(ram[0x10], ram[0x14], ram[0x3d], ram[0x38])
    end
    assert.equal("00 06 32 00", told(0, 0))
    assert.equal("40 07 21 30", told(4, 0))
    assert.equal("05 07 21 30", told(0, 5))
    assert.equal("42 47 21 30", told(4, 2))
  end)

  it("is where it is, and the number of vCPUs", function()
    local config = firmware.config(4096 * MIB, 3)
    local map = config.files["etc/e820"]
    assert.equal(3 * 20, #map)
    assert.equal("\0\0\0\0\1\0\0\0\0\0\0\64\0\0\0\0\1\0\0\0", map:sub(41)) -- 1 GiB behind 4
    assert.equal("\3\0", config.items[5])
    assert.equal("\1\0\0\0", config.items[0x8002])
    assert.equal(20, #firmware.config(0x80000, 1).files["etc/e820"])
  end)
end)
