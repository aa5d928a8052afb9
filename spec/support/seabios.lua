-- SPDX-License-Identifier: MIT
-- A PC with interrupt controllers and a timer in Lua, which runs Debian's SeaBIOS on a fake clock
-- that is advanced while the guest halts. Run by seabios_spec.lua in a process of its own.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local luna = require "lunavisor"
local stream = require "lunavisor.device.models.stream"

local FOLDER = "/usr/share/seabios/"
local M = { FIRMWARE = FOLDER .. "bios.bin" }

--- A PC; console and serial are what it has said. `disk`: with that buffer for a hard disk, and a
--- screen. `cdrom`: with that CD. `floppy`: with that floppy disk.
function M.new(disk, cdrom, floppy)
  local pc = { console = stream.ring(), serial = stream.ring(), clock = device.clock() }
  local vga = disk and { rom = files.read(FOLDER .. "vgabios-stdvga.bin") } or false
  pc.vm = assert(luna.machine("pc", { memory = "16M", irqchip = "pic", clock = pc.clock,
    bios = M.FIRMWARE, disk = disk, cdrom = cdrom, floppy = floppy,
    serial = pc.serial, debug = pc.console,
    time = 1700000000,
    devices = { vga = vga, floppy = floppy and { pace = 0 } or nil } }))
  local devices = pc.vm.devices
  pc.ram, pc.cpu = pc.vm.machine.ram, pc.vm.vcpus[1]
  pc.pic, pc.keyboard, pc.vga = devices.pic, devices.keyboard, disk and devices.vga
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
