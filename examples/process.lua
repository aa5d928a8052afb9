-- SPDX-License-Identifier: MIT
-- A Linux program without Linux: it runs in ring 3, and what it asks the kernel for comes here. The
-- file that it opens is text made by a function, and one of its system calls is answered by the
-- script, all others by the library.

local luna = require "lunavisor"

-- The smallest ELF file that holds it; those of "gcc -static" run as well.
local program = assert(luna.asm([[
  db 127, "ELF", 2, 1, 1
  times 9 db 0
  dw 2, 62                         ; an executable, for x86-64
  dd 1
  dq start, headers - $$, 0
  dd 0
  dw 64, 56, 1, 0, 0, 0
headers:
  dd 1, 7                          ; a segment that all is allowed with
  dq 0, $$, $$, end - $$, 0x2000, 0x1000

start:
  mov eax, 2                       ; open
  mov edi, path
  xor esi, esi
  syscall
  mov edi, eax
  xor eax, eax                     ; read
  mov esi, end
  mov edx, 256
  syscall
  mov edx, eax
  mov eax, 1                       ; write
  mov edi, 1
  syscall
  mov eax, 186                     ; gettid
  syscall
  mov edi, eax
  mov eax, 231                     ; exit_group
  syscall
path:
  db "/visitors", 0
end:
]], { bits = 64, org = 0x400000 }))

local visits = 0

local process = assert(luna.process({ bytes = program, name = "visitors" }, {
  files = {
    ["/visitors"] = function(path)
      visits = visits + 1
      return ("%s was opened for the first time\n"):format(path)
    end,
  },
  stdout = function(text) io.write("the program says: ", text) end,
}))

process:on("gettid", function(call)
  print(("%s is call %d, and would be answered with %d"):format(call.name, call.number,
    call:default()))
  return 42
end)

print(assert(process:run { timeout = 10 }), visits)
process:close()

-- The same with mov eax, [rax] where the first instruction was: nothing is at address 0.
local wrong = program:gsub("\xb8\2\0\0\0", "\x8b\0\x90\x90\x90", 1)
local failed = assert(luna.process { bytes = wrong, name = "wrong" })
local ending = assert(failed:run { timeout = 10 })
print(ending.signal, ending.status)
print(ending.exit:explain().refused)
failed:close()
