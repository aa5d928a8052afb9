-- SPDX-License-Identifier: MIT
-- A PC put together by hand of shipped devices, which runs Debian's SeaBIOS on a fake clock that is
-- advanced while the guest halts. Run by seabios_spec.lua in a process of its own.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local luna = require "lunavisor"
local stream = require "lunavisor.device.models.stream"

local FOLDER = "/usr/share/seabios/"
local M = { FIRMWARE = FOLDER .. "bios.bin" }

local function model(name) return require("lunavisor.device.models." .. name) end

local function memory(vm, bios)
  local ram, rom = assert(luna.buffer "16M"), assert(luna.buffer(#bios))
  rom:write(0, bios)
  assert(vm.default:map(ram, 0, { size = 0xa0000 })) -- above it is the VGA's window
  assert(vm.default:map(ram, 0xc0000, { offset = 0xc0000 }))
  assert(vm.default:map(rom, 2 ^ 32 - #bios, { rights = "r-x" }))
  ram:write(0x100000 - #bios, bios)
  return ram
end

local bridge = model("pci").device "i440fx" { pci = {
  vendor = 0x8086, device = 0x1237, class = 0x060000, subsystem_vendor = 0x1af4,
  subsystem = 0x1100, registers = { PAM = { at = 0x58, width = 1, count = 8 } } } }

-- An IDE controller at the addresses that it has always had, of which SeaBIOS knows by this.
local ide = device "piix3_ide" { regions = { config = model("pci").config {
  vendor = 0x8086, device = 0x7010, class = 0x010100,
  registers = { TIMING = { at = 0x40 } } } } }

-- CMOS memory as SeaBIOS reads it: 15 MB above the first, and hard disks before all else.
local CMOS = { [0x30] = 0x00, [0x31] = 0x3c, [0x3d] = 0x02 }

-- Screen, keyboard and disk: what a user has of a PC.
local function attach_user(pc, vm, host, disk)
  pc.vga = model "vga" { rom = files.read(FOLDER .. "vgabios-stdvga.bin") }
  pc.keyboard = model "i8042" ()
  host:add(pc.vga, 2)
  host:add(ide(), 1)
  pc.disk = model "ata" { master = disk }
  vm:attach(pc.vga, { pio = { io = 0x3c0, vbe = 0x1ce }, mmio = { window = 0xa0000 } })
  vm:attach(pc.keyboard, { pio = { data = 0x60, control = 0x64 }, irq1 = pc.pic.inputs[1],
    irq12 = pc.slave.inputs[4] })
  vm:attach(pc.disk, { pio = { command = 0x1f0, control = 0x3f6 }, irq = pc.slave.inputs[6] })
end

local function attach(pc, vm, disk)
  local slave = model "i8259" { name = "pic2", levels = 0xde }
  local pic = model "i8259" { name = "pic", levels = 0xf8, slaves = { [2] = slave } }
  local pit, host = model "i8254" (), model "pci_host" { map = model("pci").mapper(vm) }
  local rtc = model "mc146818" { ram = CMOS, time = 1700000000 }
  local serial = model "uart16550" { output = pc.serial }
  host:add(bridge(), 0)
  vm:attach(pic, { pio = { main = 0x20, elcr = 0x4d0 } })
  vm:attach(slave, { pio = { main = 0xa0, elcr = 0x4d1 } })
  vm:attach(pit, { pio = 0x40, out0 = pic.inputs[0] })
  vm:attach(rtc, { pio = 0x70, irq = slave.inputs[0] })
  vm:attach(serial, { pio = 0x3f8, irq = pic.inputs[4] })
  vm:attach(model "system_ports" { pit = pit }, { pio = { b = 0x61, a = 0x92 } })
  vm:attach(model "fw_cfg" { items = { [5] = "\1\0" } }, { pio = { main = 0x510, dma = 0x514 } })
  vm:attach(host, { pio = { main = 0xcf8, data = 0xcfc } })
  vm:attach(model "debug_console" { output = pc.console }, { pio = 0x402 })
  pc.pic, pc.slave = pic, slave
  if disk then attach_user(pc, vm, host, disk) end
end

--- A PC; console and serial are what it has said. `disk`: with that buffer for a hard disk, a
--- screen and a keyboard.
function M.new(disk)
  local bios = files.read(M.FIRMWARE)
  local pc = { console = stream.ring(), serial = stream.ring(), clock = device.clock() }
  local vm = assert(luna.vm { unknown = "ones", clock = pc.clock })
  pc.vm, pc.ram = vm, memory(vm, bios)
  attach(pc, vm, disk)
  pc.cpu = assert(vm:vcpu { mode = "reset" })
  -- The PIC's INT: its vector is asked for when the guest can take it.
  pc.pic.int:connect(function(level) pc.cpu:window(level) end)
  pc.cpu:on("other", function(cpu, exit)
    if exit.reason_name ~= "irq_window_open" then return end
    cpu:window(false)
    cpu:irq(pc.pic:acknowledge())
    return "continue"
  end)
  return pc
end

--- Runs until until_true(pc), or for so many seconds of the host; time passes while it halts.
--- Returns whether it is true, and the last exit.
function M.run(pc, until_true, seconds)
  local deadline = luna.clock() + seconds
  local exit
  while luna.clock() < deadline do
    exit = pc.cpu:run { timeout = 0.5 }
    if exit and exit.kind == "hlt" then
      while not pc.pic.lines.int do pc.clock:advance(0.001) end
      pc.cpu:window(false)
      pc.cpu:irq(pc.pic:acknowledge())
    elseif exit and exit.kind ~= "timeout" then
      return until_true(pc), exit
    end
    if until_true(pc) then return true, exit end
  end
  return false, exit
end

return M
