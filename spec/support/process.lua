-- SPDX-License-Identifier: MIT
-- Linux programs for the specs of luna.process: of a few lines of assembly, as ELF files.

local assert = require "luassert"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"

local M = {}

local BASE = 0x401000

-- sys NUMBER, arguments...: a system call. leave VALUE: exit_group.
local MACROS = [[
%macro sys 1-7
  %if %0 > 1
    mov rdi, %2
  %endif
  %if %0 > 2
    mov rsi, %3
  %endif
  %if %0 > 3
    mov rdx, %4
  %endif
  %if %0 > 4
    mov r10, %5
  %endif
  %if %0 > 5
    mov r8, %6
  %endif
  %if %0 > 6
    mov r9, %7
  %endif
  mov eax, %1
  syscall
%endmacro
%macro leave 1
  mov rdi, %1
  mov eax, 231
  syscall
%endmacro
]]

-- is VALUE, above VALUE: ends with the number of the check unless RAX is that, or is above it.
M.CHECKS = [[
%assign checked 0
%macro is 1
  %assign checked checked + 1
  mov r15, %1
  cmp rax, r15
  je %%good
  leave checked
  %%good:
%endmacro
%macro above 1
  %assign checked checked + 1
  mov r15, %1
  cmp rax, r15
  ja %%good
  leave checked
  %%good:
%endmacro
]]

--- What is behind the code of a program with checks: its end, and data from 0x402000 to 0x406000.
M.ROOM = "\n leave 0\n times 0x5000 db 0"

--- The ELF file of a program that begins at 0x401000, where everything is allowed. `symbols`: names
--- of distances from there.
function M.program(source, symbols)
  local list = {}
  for name, distance in pairs(symbols or {}) do
    list[#list + 1] = { name = name, value = BASE + distance }
  end
  return image.elf { entry = BASE, symbols = list[1] and list,
    segments = { { data = helper.code(MACROS .. source, 64, BASE), vaddr = BASE } } }
end

--- A process of such a program, and a function that gives what it has written by then.
function M.make(source, options, symbols)
  local output = {}
  local all = { stdout = function(text) output[#output + 1] = text end, stderr = function() end }
  for name, value in pairs(options or {}) do all[name] = value end
  local process = helper.keep(luna.process({ bytes = M.program(source, symbols), name = "prog" },
    all))
  return process, function() return table.concat(output) end
end

--- Runs one to its end: how it ended, what it has written, and the process.
function M.run(source, options, symbols)
  local process, output = M.make(source, options, symbols)
  local ending = assert(process:run { timeout = 20 })
  if ending.kind == "timeout" then error("the program does not end: " .. tostring(ending)) end
  return ending, output(), process
end

--- Runs one whose exit status must be 0, and that of what it has compared; its output.
function M.passes(source, options)
  local ending, output, process = M.run(source, options)
  assert.equal("exited with status 0", tostring(ending))
  return output, process
end

--- The same of a program with checks (is, above), and room for data.
function M.checks(source, options)
  return M.passes(M.CHECKS .. source .. M.ROOM, options)
end

return M
