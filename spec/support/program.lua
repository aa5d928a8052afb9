-- SPDX-License-Identifier: MIT
-- The program luna, run in a directory of small guests and Linux programs.

local helper = require "spec.support.helper"
local image = require "spec.support.image"
local process = require "spec.support.process"

local M = {}

local HEAD = "head: dd 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)\n dd head, head, 0, 0, start\n"
  .. "start:\n"
local PRINT = "mov dx, 0x3f8\n next: lodsb\n test al, al\n jz done\n out dx, al\n jmp next\n"
  .. "done:\n"
local ECHO = "read: mov dx, 0x3fd\n in al, dx\n test al, 1\n jz read\n mov dx, 0x3f8\n in al, dx\n"
  .. "out dx, al\n cmp al, 10\n jne read\n"

local function exit(status) return ("mov eax, %d\n out 0xf4, eax\n"):format(status) end

local function say(text) return "mov esi, text\n" .. PRINT, ("text: db %s, 0"):format(text) end

local function kernel(source)
  return helper.code(HEAD .. source, 32, 0x100000)
end

local function saying(text, rest)
  local code, data = say(text)
  return kernel(code .. rest .. data)
end

-- A boot sector that writes the number of the drive from which it came and the first byte of sector
-- 36 on side 1 of cylinder 2, which INT 13h reads; `more`: what is behind it on the disk.
local function floppy(more)
  return helper.code([[
    mov ax, 0x0201
    mov bx, 0x7e00
    mov cx, 0x0224
    mov dh, 1
    push dx
    int 0x13
    pop dx
    mov al, dl
    add al, '0'
    mov dx, 0x3f8
    out dx, al
    mov al, [0x7e00]
    out dx, al
    mov eax, 0
    out 0xf4, eax
    times 510 - ($ - $$) db 0
    dw 0xaa55]], 16, 0x7c00) .. (more or "")
end

-- A boot sector that writes on screen and serial port, and reads a line, then a key: its status.
local function disk()
  return helper.code([[
    mov si, text
    mov dx, 0x3f8
    next: lodsb
    test al, al
    jz read
    out dx, al
    mov ah, 14
    int 0x10
    mov dx, 0x3f8
    jmp next
    read: mov dx, 0x3fd
    in al, dx
    test al, 1
    jz read
    mov dx, 0x3f8
    in al, dx
    cmp al, 10
    jne read
    mov al, '#'
    out dx, al
    mov ah, 0
    int 0x16
    movzx eax, al
    out 0xf4, eax
    text: db "login:", 0
    times 510 - ($ - $$) db 0
    dw 0xaa55]], 16, 0x7c00) .. ("\0"):rep(512 * 2047)
end

local ADDER = [[
local device = require "lunavisor.device"
return { device "adder" { width = 4, holds = "sum", registers = { SUM = { at = 0,
  write = function(dev, value) dev.sum = (dev.sum or 0) + value end,
  read = function(dev) return dev.sum + 2 end } } }, pio = 0x300 }
]]

-- Prints its command line.
local LINUX = "mov esi, [rsi + 0x228]\n" .. PRINT .. exit(0) .. "hlt"

local GUEST = [[
  local luna = require "lunavisor"
  local vm, ram = luna.vm(), luna.buffer "64K"
  vm.default:map(ram, 0)
  ram:write(0x1000, luna.asm("mov al, 7\n inc al\n hlt", { bits = 16, org = 0x1000 }))
  local cpu = vm:vcpu { rip = 0x1000 }
]]

local FILES = {
  ["hello.lua"] = function() return "print(require('lunavisor')._VERSION:match '%a+', ...)" end,
  ["unit.lua"] = function() return "return { size = require('lunavisor').arguments.size }" end,
  ["board.lua"] = function() return "assert(require('lunavisor').vm())" end,
  ["adder.lua"] = function() return ADDER end,
  ["adder.elf"] = function()
    return kernel("mov dx, 0x300\n mov eax, 5\n out dx, eax\n in eax, dx\n out 0xf4, eax")
  end,
  ["guest.lua"] = function() return GUEST .. "print(..., cpu:run({ timeout = 60 }).kind)" end,
  ["note.lua"] = function()
    return GUEST .. "io.open('note', 'w'):write(cpu:run({ timeout = 60 }).kind)"
  end,
  ["stands.lua"] = function() return GUEST end,
  ["loop.lua"] = function() return (GUEST:gsub("hlt", "jmp $")) end,
  ["kernel.elf"] = function() return saying('"hello", 10', exit(0)) end,
  ["status.elf"] = function() return kernel(exit(42)) end,
  ["halt.elf"] = function() return kernel "cli\n hlt" end,
  ["loop.elf"] = function() return saying('"in a loop", 10', "jmp $\n") end,
  ["wild.elf"] = function() return kernel "mov esp, 0xfffffff0\n ud2" end,
  ["triple.elf"] = function() return kernel "lidt [none]\n ud2\n none: dw 0, 0, 0" end,
  ["panic.elf"] = function()
    return saying('"Kernel panic - not syncing: no init", 10', "jmp $\n")
  end,
  ["off.elf"] = function()
    return kernel "mov dx, 0x604\n mov ax, 0x2000\n out dx, ax\n hlt"
  end,
  ["second.elf"] = function()
    return kernel("mov esi, text\n" .. PRINT:gsub("0x3f8", "0x2f8") .. "mov dx, 0x604\n"
      .. "mov ax, 0x2000\n out dx, ax\n hlt\n text: db '17', 13, 10, 0")
  end,
  ["echo.elf"] = function() return kernel(ECHO .. exit(7)) end,
  ["vmlinuz"] = function()
    return image.linux(("\xf4"):rep(0x200) .. helper.code(LINUX, 64, 0x100200))
  end,
  ["initrd.img"] = function() return "files" end,
  ["disk.img"] = disk,
  ["sector.bin"] = function() return floppy() end,
  ["floppy.img"] = function()
    return floppy(("\0"):rep(214 * 512) .. "!" .. ("\0"):rep(2880 * 1024 - 215 * 512 - 1))
  end,
  ["cat"] = function()
    return process.program("again: sys 0, 0, 0x402000, 100\n test eax, eax\n jz done\n"
      .. "sys 1, 1, 0x402000, rax\n jmp again\n done: leave 0\n times 0x2000 db 0")
  end,
  ["args"] = function() return process.program "leave [rsp]" end,
  ["open"] = function()
    return process.program("sys 2, name, 0, 0\n neg eax\n jns failed\n"
      .. "sys 40, 1, 3, 0, 100\n leave 0\n failed: leave rax\n name: db '/text', 0")
  end,
  ["text"] = function() return "hello\n" end,
  ["env"] = function() return process.program "sys 1, 1, [rsp + 24], 5\n leave 0" end,
  ["terminal"] = function()
    return process.program("sys 16, 0, 0x5401, 0x402000\n neg eax\n leave rax\n"
      .. "times 0x2000 db 0")
  end,
  ["wrong"] = function() return process.program "mov eax, [8]" end,
  ["big"] = function()
    return process.program "again: sub rsp, 0x1000\n mov [rsp], eax\n jmp again"
  end,
  ["stay"] = function() return process.program "jmp $" end,
  ["socket"] = function() return process.program "sys 41, 2\n neg eax\n leave rax" end,
  ["junk"] = function() return "junk" end,
}

--- Makes a directory with the files; returns its path.
function M.directory()
  local path = helper.sh "mktemp -d"
  for name, make in pairs(FILES) do
    local file = assert(io.open(path .. "/" .. name, "wb"))
    file:write(make())
    file:close()
  end
  return path
end

--- Runs `luna` with these words there: what it printed, and its status. `before`: of the shell.
function M.luna(path, words, before)
  return helper.sh(("luna=$PWD/scripts/luna; cd %s; export LUNA_LUA=%s; %s $luna %s"):format(path,
    helper.engine, before or "", words))
end

--- The same, which has to end with the status and say the text; the output.
function M.ends(path, status, text, words, before)
  local output, found = M.luna(path, words, before)
  assert(found == status, ("%s ends with %d, not %d:\n%s"):format(words, found, status, output))
  helper.contains(text, output)
  return output
end

return M
