-- SPDX-License-Identifier: MIT
-- The machine "pc": what firmware and kernels of PCs look for, at the places and with the
-- interrupts of an i440FX with its PIIX3 and PIIX4.

local acpi = require "lunavisor.machine.acpi"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local firmware = require "lunavisor.machine.firmware"
local pci = require "lunavisor.device.models.pci"
local set_window = require "lunavisor.vcpu.window"

local PM, TABLES = 0x600, 0xe0000 -- ACPI's ports where nobody moves them, and its tables
local ISA, IDE, POWER = 0, 1, 3   -- functions of slot 1
local SCREEN = 2                  -- the slot of the VGA
local PIRQS = { [0] = 10, 10, 11, 11 } -- where PIRQA to PIRQD go where no firmware says so
-- So go INTA# to INTD# of slot 0, the first of which is PIRQD; PCI's memory begins behind RAM.
local ROUTES = { [0] = PIRQS[3], PIRQS[0], PIRQS[1], PIRQS[2], low = 0xc0000000 }

-- Functions of PCI of which there is no more than their configuration space.
local bridge = pci.device "i440fx" { pci = { vendor = 0x8086, device = 0x1237, class = 0x060000,
  subsystem_vendor = 0x1af4, subsystem = 0x1100,
  registers = { PAM = { at = 0x58, width = 1, count = 8 } } } }
local pm = pci.device "piix4_pm" { pci = { vendor = 0x8086, device = 0x7113, class = 0x068000,
  registers = { BASE = { at = 0x40 }, COUNT = { at = 0x44 }, ACTIVITY = { at = 0x58 },
    ENABLE = { at = 0x80, width = 1 } } } }

local function any(_, value) return value end

local function depth() return class.outside() - 2 end

local function fail(form, ...)
  error(form:format(...), class.outside())
end

local function one_of(...)
  local list, known = table.concat({ ... }, "', '"), {}
  for _, name in ipairs { ... } do known[name] = true end
  return function(what, value)
    if not known[value] then
      fail("%s: one of '%s' expected, got %s", what, list, type(value) == "string"
        and ("%q"):format(value) or class.describe(value))
    end
    return value
  end
end

local options = {
  bios = any, disk = any, cdrom = any, floppy = any, serial = any, debug = any, time = any,
  irqchip = one_of("kernel", "pic"), pit = one_of("kernel", "device"),
  acpi = function(what, value)
    value = check.flag(what, value, depth())
    return value
  end,
  pm = function(what, value)
    value = check.whole(what, value, 0, 0xfff0, depth())
    return value
  end,
}

-- Whether a part is a device of that model.
local function is_of(dev, model) return dev and rawget(dev, "class").name == model end

-- Two 8259s as devices; the first one's INT is asked for a vector when the vCPU can take one.
local function add_pics(board)
  local second = board:put("pic2", "i8259", { pio = { main = 0xa0, elcr = 0x4d1 } },
    { levels = 0xde })
  local pic = board:put("pic", "i8259", { pio = { main = 0x20, elcr = 0x4d0 } },
    { levels = 0xf8, slaves = { [2] = second } })
  for i = 0, 7 do board.pins[i], board.pins[8 + i] = pic.inputs[i], second.inputs[i] end
  return pic
end

-- Leads what the gate of address line 20 is back to a device that is a way to it.
local function follow_gate(gate, dev)
  local input = dev and gate and rawget(dev.inputs, "a20")
  if input and is_of(gate, "a20_gate") then gate.a20:connect(input) end
end

-- The input of the gate for one of the ways to it; nil where there is none.
local function way(gate, name)
  return gate and is_of(gate, "a20_gate") and gate.inputs[name] or nil
end

-- Where KVM leads line 0, the timer's, to input 0 of the IOAPIC, a PC's is at input 2, as ACPI's
-- tables and SeaBIOS have it (fw_cfg's item for that).
local function route_timer(board)
  local routes = { { line = 0, chip = "ioapic", pin = 2 } }
  for line = 0, 23 do
    if line < 16 then routes[#routes + 1] = { line = line, chip = "pic", pin = line } end
    if line ~= 0 and line ~= 2 then
      routes[#routes + 1] = { line = line, chip = "ioapic", pin = line }
    end
  end
  local ok, message, code = board.vm:route(routes)
  if not ok then error({ message, code }, 0) end
end

local function add_pit(board, gate)
  local pit = false
  if board.options.pit ~= "kernel" then
    pit = board:put("pit", "i8254", { pio = 0x40, out0 = board:irq(0) })
  end
  local function reset(level) if level then board.vm:stop "reset" end end
  follow_gate(gate, board:put("ports", "system_ports", { reset_out = reset,
    a20 = way(gate, "fast"), pio = { b = pit and 0x61 or nil, a = 0x92 } }, { pit = pit }))
  return reset
end

local function add_keyboard(board, reset, gate)
  follow_gate(gate, board:put("keyboard", "i8042", { pio = { data = 0x60, control = 0x64 },
    irq1 = board:irq(1), irq12 = board:irq(12), reset_out = reset, a20 = way(gate, "keyboard") },
    { log = false }))
end

-- A drive of an option: { image =, ... }. That its file is not there is for the host to say, and no
-- mistake of the script's.
local function drive_of(board, name)
  local given, drive = board.options[name], {}
  if not given then return false end
  if type(given) ~= "table" or class.of(given) == "buffer" then given = { image = given } end
  for key, value in pairs(given) do drive[key] = value end
  if type(drive.image) == "string" then
    local file, message = io.open(drive.image, "rb")
    if not file then
      error({ ("%s: %s: %s"):format(board.what, name, message), "not_found" }, 0)
    end
    file:close()
  end
  if name ~= "floppy" then drive.cdrom = name == "cdrom" or drive.cdrom end
  return drive
end

-- DMA, and the floppy controller on its channel 2, where the options speak of them: they take some
-- milliseconds to be made. Without firmware the first chip comes through the second one already.
-- Returns the types of the drives, as CMOS memory has them.
local function add_floppy(board)
  local given = board.options
  if not (given.floppy or given.devices.floppy or given.devices.dma) then return 0, 0 end
  local dma = board:put("dma", "i8237", { pio = { main = 0, second = 0xc0, pages = 0x80 } })
  local floppy = board:put("floppy", "i82077", { pio = { main = 0x3f0, change = 0x3f7 },
    irq = board:irq(6), drq = is_of(dma, "i8237") and dma.inputs[2] or nil },
    { drive0 = drive_of(board, "floppy"), log = false })
  if not is_of(floppy, "i82077") then return 0, 0 end
  if is_of(dma, "i8237") then
    dma:serve(2, floppy)
    if not given.bios then dma.MODE[4].value, dma.chips[1].mask = 0xc0, 0xe end
  end
  return floppy:drive_type(0), floppy:drive_type(1)
end

-- A channel for the bus master, unless another device is in its place.
local function channel(dev)
  return is_of(dev, "ata") and dev or false
end

local function add_functions(board, host, drives)
  local isa = require "lunavisor.device.models.piix3" { log = false }
  local ide = require "lunavisor.device.models.piix3_ide" { log = false,
    primary = channel(drives[1]), secondary = channel(drives[2]) }
  host:add(bridge { log = false }, 0)
  host:add(isa, 1, ISA)
  host:add(ide, 1, IDE)
  if not board.options.bios then -- as firmware leaves it: "IDE Decode Enable", and PIRQs
    ide.TIMING[0], ide.TIMING[1] = 0x8000, 0x8000
    for i = 0, 3 do isa.PIRQRC[i].value = PIRQS[i] end
  end
  host:add(pm { log = false }, 1, POWER)
  for line, pin in pairs { inta = "pirqd", intb = "pirqa", intc = "pirqb", intd = "pirqc" } do
    host[line]:connect(isa.inputs[pin])
  end
  for _, irq in ipairs { 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15 } do
    local target = board:irq(irq)
    isa["irq" .. irq]:connect(type(target) == "number" and board.vm:line(target) or target)
  end
end

local function add_pci(board, reset)
  local host = board:put("pci", "pci_host", { pio = { main = 0xcf8, data = 0xcfc },
    reset_out = reset }, { map = pci.mapper(board.vm), log = false })
  local drives = { drive_of(board, "disk"), drive_of(board, "cdrom") }
  for i, place in ipairs { { command = 0x1f0, control = 0x3f6 },
    { command = 0x170, control = 0x376 } } do
    drives[i] = board:put("ide" .. i, "ata", { pio = place, irq = board:irq(13 + i) },
      { master = drives[i], log = false })
  end
  if host then add_functions(board, host, drives) end
  local vga = board:put("vga", "vga", { pio = { io = 0x3c0, vbe = 0x1ce },
    mmio = { window = 0xa0000 } }, { log = false })
  if host and vga and rawget(vga.regions, "config") then host:add(vga, SCREEN) end
end

local function add_power(board)
  local power = board:put("power", "acpi_pm", { sci = board:irq(9),
    pio = { main = board.options.pm or PM, command = 0xb2 },
    off = function(level) if level then board.vm:stop "off" end end }, { log = false })
  if power and not board.options.bios and board.options.acpi ~= false
    and board.irqchip == "kernel" and board.size >= 0x100000 then
    board.ram:write(TABLES, acpi.tables(board.cpus, board.options.pm or PM, TABLES,
      board.options.devices.pci ~= false and ROUTES or nil))
  end
end

local function add_ports(board)
  local given, vm = board.options, board.vm
  local floppies = { add_floppy(board) }
  local serial = given.serial == nil and io.stdout or given.serial
  board:put("com1", "uart16550", { pio = 0x3f8, irq = board:irq(4) }, { output = serial })
  board:put("rtc", "mc146818", { pio = 0x70, irq = board:irq(8) },
    { time = given.time or os.time(), ram = firmware.cmos(board.size, floppies) })
  if not given.bios then board.ram:write(firmware.data_area(board.size, floppies)) end
  board:put("fw_cfg", "fw_cfg", { pio = { main = 0x510, dma = 0x514 } },
    firmware.config(board.size, board.cpus))
  board:put("debug", "debug_console", { pio = 0x402 }, { output = given.debug or false })
  board:put("console", "debug_console", { pio = 0xe9 }, { output = serial })
  board:put("debug_exit", "debug_exit", { pio = 0xf4 },
    { exit = function(value) vm:stop(value) end })
end

-- The vCPU asks the 8259 for a vector when it can take an interrupt.
local function follow(cpu, pic)
  pic.int:connect(function(level) if cpu[1] then set_window(cpu, level) end end)
  cpu:on("other", function(_, exit)
    if exit.reason_name ~= "irq_window_open" then return end
    cpu:window(false)
    cpu:irq(pic:acknowledge())
    return "continue"
  end)
end

local function build(board)
  local given = board.options
  local ok, message, code = board:map(given.devices.vga ~= false)
  if not ok then return nil, message, code end
  local pic = board.irqchip == "pic" and add_pics(board)
  if not pic then route_timer(board) end
  local gate = board:put("a20", "a20_gate", {}, { map = board:gate() })
  local reset = add_pit(board, gate)
  add_keyboard(board, reset, gate)
  add_ports(board)
  add_pci(board, reset)
  add_power(board)
  if given.bios ~= nil then
    ok, message, code = board:boot(given.bios, { format = "bios" })
  else
    ok, message, code = board:boot(given.image, given.load)
  end
  if not ok then return nil, message, code end
  if pic and board.vm.vcpus[1] then follow(board.vm.vcpus[1], pic) end
  return true
end

return {
  options = options, build = build,
  parts = "a20 pic pic2 pit ports keyboard dma floppy com1 rtc fw_cfg debug console debug_exit pci "
    .. "ide1 ide2 vga power",
  defaults = { memory = 128 * 2 ^ 20, irqchip = "kernel", unknown = "ones" },
  check = function(what, given)
    if given.irqchip == "pic" then
      if (given.cpus or 1) > 1 then
        fail("%s: with irqchip = 'pic' there is one vCPU", what)
      end
      given.pit = "device"
    end
    given.pit = given.pit or "kernel"
    if given.bios ~= nil and given.image ~= nil then
      fail("%s: an image or a bios expected, not both", what)
    end
  end,
}
