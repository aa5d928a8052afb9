-- SPDX-License-Identifier: MIT
-- Guests with debugging information, made by compilers, assemblers and ld for the specs of source
-- lines.

local files = require "spec.support.files"
local helper = require "spec.support.helper"

local M = {}

--- kernel.c calls twice() of twice.h and, in other.c, triple(); then it executes UD2.
local sources = {
  ["kernel.c"] = [[
#include "twice.h"
int triple(int);
static int both(int x) {
  int y = twice(x);
  return triple(y);
}
void _start(void) {
  volatile int n = 0;
  n = both(7);
  for (;;)
    __asm__ volatile("ud2");
}
]],
  ["twice.h"] = [[
static int twice(int x) {
  int y = x * 2;
  return y;
}
]],
  ["sub/other.c"] = [[

int triple(int x) {
  return x * 3;
}
]],
  ["start.asm"] = [[
section .boot
align 4
dd 0x1badb002, 0, -0x1badb002
section .text
global _start
_start:
  mov eax, 1
  nop
again:
  hlt
  jmp again
]],
}

--- A directory with the sources, gone after the test.
function M.directory()
  local dir = helper.sh "mktemp -d"
  helper.keep { close = function() os.execute("rm -rf " .. dir) end }
  assert(os.execute("mkdir " .. dir .. "/sub"))
  for name, text in pairs(sources) do files.write(dir .. "/" .. name, text) end
  return dir
end

local function run(dir, command)
  local output, status = helper.sh("cd " .. dir .. " && " .. command)
  assert(status == 0, output)
  return dir .. "/guest"
end

--- Compiles kernel.c and sub/other.c to DIR/guest, to begin at 1 MiB; its path. options: cc, bits,
--- flags.
function M.c(dir, options)
  return run(dir, ("%s -m%d %s -O0 -ffreestanding -fno-pic -fno-stack-protector -mno-sse "
    .. "-fcf-protection=none -nostdlib -static -Wl,--build-id=none -Wl,-Ttext=0x100000 kernel.c "
    .. "sub/other.c -o guest"):format(options.cc or "gcc", options.bits or 64,
    options.flags or "-g"))
end

--- The same as a position-independent executable.
function M.pie(dir)
  return run(dir, "gcc -g -O0 -ffreestanding -fno-stack-protector -fcf-protection=none -nostdlib "
    .. "-static-pie kernel.c sub/other.c -o guest")
end

--- Assembles and links start.asm, a multiboot kernel, to DIR/guest, for `address` (else 1 MiB).
function M.asm(dir, bits, address)
  address = address or 0x100000
  return run(dir, ("nasm -f elf%d -g -F dwarf start.asm -o start.o && ld -m %s -Ttext=0x%x "
    .. "--section-start=.boot=0x%x start.o -o guest"):format(bits,
    bits == 64 and "elf_x86_64" or "elf_i386", address + 0x1000, address))
end

return M
