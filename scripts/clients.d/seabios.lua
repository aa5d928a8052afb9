-- SPDX-License-Identifier: MIT
-- The client seabios: Debian's SeaBIOS, which boots a disk image whose first sector says so on the
-- port for debugging. The machine is made in seabios_vm.lua.

local luna = require "lunavisor"
local process = require "process"

local M = { about = "Debian's SeaBIOS, to a boot sector (LUNA_CLIENTS)" }

local BIOS = "usr/share/seabios/bios.bin"
local SECTOR = [[
  mov si, text
  mov dx, 0x402
next: lodsb
  out dx, al
  test al, al
  jnz next
  mov eax, 0x42
  out 0xf4, eax
  hlt
text: db "the boot sector runs", 10, 0
  times 510 - ($ - $$) db 0
  dw 0xaa55]]
local CHECKS = { "SeaBIOS %(version 1%.", "Found 1 serial port", "ata0%-0: ",
  "Booting from 0000:7c00", "the boot sector runs\n" }
local MENU = { "Press ESC for boot menu", "Select boot device", "the boot sector runs\n" }

function M.missing()
  return process.missing { { BIOS, "seabios" } }
end

function M.tests()
  return { { name = "disk", checks = CHECKS }, { name = "menu", checks = MENU, menu = true } }
end

-- A disk of 8 MiB.
local function make_disk()
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write((assert(luna.asm(SECTOR, { org = 0x7c00 }))))
  file:seek("set", 8 * 2 ^ 20 - 512)
  file:write(("\0"):rep(512))
  file:close()
  return path
end

local function run(test, options, form, ...)
  local disk = make_disk()
  local text, status, seconds, used = process.run(form:format(process.quote(disk), ...),
    options.seconds)
  os.remove(disk)
  local result = process.judge(test.checks, text, status, seconds)
  result.used = used
  return result
end

function M.ours(test, options)
  return run(test, options, ("env LUNA_LUA=%s %s run %s %s %%s %s %s"):format(arg[-1] or "luajit",
    process.quote(options.directory .. "/../luna"),
    process.quote(options.directory .. "/seabios_vm.lua"), process.quote(process.find(BIOS)),
    options.accel, test.menu and "menu" or ""))
end

--- Nobody presses its keys.
function M.other(test, options)
  if test.menu or not process.has_qemu() then return nil end
  return run(test, options, "qemu-system-x86_64 -accel tcg -m 16 -nodefaults -vga none "
    .. "-display none -debugcon stdio -global isa-debugcon.iobase=0x402 -serial null "
    .. "-device isa-debug-exit,iobase=0xf4,iosize=4 -drive file=%s,format=raw,if=ide -bios "
    .. process.quote(process.find(BIOS)))
end

return M
