-- SPDX-License-Identifier: MIT
-- The PCs that the clients run in, of the shipped devices: what every one has, and what firmware
-- needs besides.

local luna = require "lunavisor"

local M = {}

local PM = 0x600 -- ACPI's fixed hardware where nobody moves it
local ISA, IDE, POWER = 0, 1, 3 -- functions of slot 1, as in a PIIX4

local function model(name) return require("lunavisor.device.models." .. name) end

M.PM = PM

--- A PC with memory, interrupt controllers, PIT, clock, serial port and ACPI's fixed hardware:
--- { vm, ram }. Its run ends with the value "off" when its power is turned off. options: accel;
--- memory, a size; serial: where characters go, this program's output where nil; text: memory at
--- the VGA's text screen, 0xb8000, where no VGA is; cmos: bytes of the clock's memory; pm: the port
--- of the fixed hardware.
function M.new(options)
  local vm = assert(luna.vm { accel = options.accel, irqchip = "kernel", pit = true,
    unknown = "ones" })
  local ram = assert(luna.buffer(options.memory))
  assert(vm.default:map(ram, 0, { size = 0xa0000 }))
  if options.text then
    assert(vm.default:map(ram, 0xb8000, { offset = 0xb8000, size = 0x8000 }))
  end
  assert(vm.default:map(ram, 0xc0000, { offset = 0xc0000 }))
  vm:attach(model "uart16550" { output = options.serial or io.stdout }, { pio = 0x3f8, irq = 4 })
  vm:attach(model "mc146818" { time = os.time(), ram = options.cmos }, { pio = 0x70, irq = 8 })
  local power = model "acpi_pm" { log = false }
  vm:attach(power, { pio = { main = options.pm or PM, command = 0xb2 }, sci = 9 })
  power.off:connect(function(level) if level then vm:stop "off" end end)
  return { vm = vm, ram = ram }
end

local function le(value, size)
  local bytes = {}
  for i = 1, size do
    local byte = value % 256
    bytes[i], value = string.char(byte), (value - byte) / 256
  end
  return table.concat(bytes)
end

-- The file etc/e820: memory up to `size`.
local function e820(size)
  return le(0, 8) .. le(0xa0000, 8) .. le(1, 4)
    .. le(0x100000, 8) .. le(size - 0x100000, 8) .. le(1, 4)
end

-- Functions of PCI that firmware looks for, no more of them than their configuration space.
local function add_pci(vm)
  local pci = model "pci"
  local host = model "pci_host" { map = pci.mapper(vm), log = false }
  local function add(name, about, slot, number)
    about.vendor = 0x8086
    host:add(pci.device(name) { pci = about } { log = false }, slot, number)
  end
  add("i440fx", { device = 0x1237, class = 0x060000, subsystem_vendor = 0x1af4, subsystem = 0x1100,
    registers = { PAM = { at = 0x58, width = 1, count = 8 } } }, 0, 0)
  host:add(model "piix3" { log = false }, 1, ISA)
  add("piix3_ide", { device = 0x7010, class = 0x010100, registers = { TIMING = { at = 0x40 } } }, 1,
    IDE)
  add("piix4_pm", { device = 0x7113, class = 0x068000, registers = { BASE = { at = 0x40 },
    COUNT = { at = 0x44 }, ACTIVITY = { at = 0x58 }, ENABLE = { at = 0x80, width = 1 } } }, 1,
    POWER)
  vm:attach(host, { pio = { main = 0xcf8, data = 0xcfc } })
end

--- Puts firmware and what it needs into a PC: PCI, keyboard, the small ports, its configuration
--- device, a console for debugging (0x402) and one to end the run, whose value is the run's (0xf4).
--- options: image; size, bytes of memory; disk, of the first ATA channel; console, a function of
--- what the firmware says; items and files of the configuration device. pc.keyboard is the
--- keyboard, pc.cpu the vCPU at its reset.
function M.firmware(pc, options)
  local vm, files = pc.vm, { ["etc/e820"] = e820(options.size) }
  local items = { [5] = "\1\0", [0xf] = "\1\0" } -- one processor, and at most one
  for name, data in pairs(options.files or {}) do files[name] = data end
  for number, data in pairs(options.items or {}) do items[number] = data end
  pc.image = assert(luna.load(vm, options.image, { format = "bios" }))
  add_pci(vm)
  pc.keyboard = model "i8042" { log = false }
  vm:attach(pc.keyboard, { pio = { data = 0x60, control = 0x64 }, irq1 = 1, irq12 = 12 })
  vm:attach(model "debug_console" { output = options.console or false }, { pio = 0x402 })
  vm:attach(model "debug_exit" { exit = function(value) vm:stop(value) end }, { pio = 0xf4 })
  vm:attach(model "fw_cfg" { items = items, files = files }, { pio = { main = 0x510,
    dma = 0x514 } })
  vm:attach(model "ata" { master = options.disk or false, log = false }, {
    pio = { command = 0x1f0, control = 0x3f6 }, irq = 14 })
  vm:attach(model "ata" { name = "ata2", log = false }, {
    pio = { command = 0x170, control = 0x376 }, irq = 15 })
  pc.cpu = assert(vm:vcpu { mode = "reset" })
end

--- Ends this program: with status 0 where the run has ended as it should, else with what the vCPU
--- was at and status 1.
function M.finish(exit, message, value)
  if not exit then error(message, 0) end
  if exit.value ~= value then
    io.stdout:write("\n", tostring(exit), "\n")
    local code = exit.cpu and exit.cpu:disasm(8)
    if code then print(code) end
  end
  os.exit(exit.value == value and 0 or 1, true)
end

return M
