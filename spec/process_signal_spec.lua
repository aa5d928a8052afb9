-- SPDX-License-Identifier: MIT
-- The system calls about signals that luna.process answers, each by programs of a few lines, which
-- check what Linux says of it: one that is content ends with 0, else with the number of its check.

local helper = require "spec.support.helper"
local programs = require "spec.support.process"
local passes = programs.checks

helper.kvm("signals", function()
  -- act NUMBER, flags: the handler, with a restorer.
  local HANDLER = programs.CHECKS .. [[
    %macro act 2
      mov qword [0x402000], handler
      mov qword [0x402008], 0x04000000 | %2
      mov qword [0x402010], restorer
      mov qword [0x402018], 0
      sys 13, %1, 0x402000, 0, 8
      is 0
    %endmacro
    jmp start
    restorer: mov eax, 15
    syscall
    start:
  ]]
  local function caught(source, handler)
    return programs.passes(HANDLER .. source .. "\n leave 0\n handler:" .. handler
      .. "\n times 0x8000 db 0")
  end

  it("come to a handler, which finds registers as they were behind it", function()
    caught([[
      act 10, 4
      mov rbx, rsp
      mov rax, 0x123456789
      movq xmm3, rax
      mov r12, rax
      sys 62, 1000, 10
      is 0
      mov rax, rsp
      is rbx
      movq rax, xmm3
      is r12
      mov eax, [0x403000]
      is 10
      mov eax, [0x403004]
      is 10]], [[
      mov [0x403000], edi
      mov eax, [rsi]
      mov [0x403004], eax
      lea rax, [rsp + 8]
      and eax, 15
      is 0
      xor eax, eax
      movq xmm3, rax
      xor ebx, ebx
      ret]])
  end)

  it("tell of faults, and let the program go on behind them", function()
    caught([[
      act 11, 4
      xor ecx, ecx
      mov eax, [rcx + 0x18]
      is 99
      mov rax, [0x403000]
      is 0x18
      mov rax, [0x403008]
      is 1]], [[
      mov rax, [rsi + 16]
      mov [0x403000], rax
      mov eax, [rsi + 8]
      mov [0x403008], rax
      mov rax, [rdx + 40 + 16 * 8]
      add qword [rdx + 40 + 16 * 8], 3
      mov qword [rdx + 40 + 13 * 8], 99
      ret]])
  end)

  it("wait while they are blocked", function()
    caught([[
      act 10, 0
      mov qword [0x402100], 1 << 9
      sys 14, 0, 0x402100, 0x402108, 8
      is 0
      mov rax, [0x402108]
      is 0
      sys 200, 1000, 10
      mov eax, [0x403000]
      is 0
      sys 127, 0x402110, 8
      mov rax, [0x402110]
      is 1 << 9
      sys 14, 1, 0x402100, 0, 8
      mov eax, [0x403000]
      is 1
      sys 14, 2, 0x402100, 0x402108, 8
      sys 14, 0, 0, 0x402108, 8
      mov rax, [0x402108]
      is 1 << 9
      sys 14, 9, 0x402100, 0, 8
      is -22
      sys 14, 0, 0x402100, 0, 4
      is -22]], "inc dword [0x403000]\n ret")
  end)

  it("come on a stack of their own", function()
    caught([[
      mov qword [0x402100], 0x404000
      mov qword [0x402108], 0
      mov qword [0x402110], 0x2000
      sys 131, 0x402100, 0
      is 0
      sys 131, 0, 0x402200
      mov rax, [0x402200]
      is 0x404000
      act 11, 0x08000004
      mov rsp, 8
      mov eax, [rsp]
      is 7
      mov qword [0x402110], 100
      sys 131, 0x402100, 0
      is -12
      mov dword [0x402108], 2
      sys 131, 0x402100, 0
      is 0]], [[
      mov rax, rsp
      above 0x404000
      mov qword [rdx + 40 + 13 * 8], 7
      add qword [rdx + 40 + 16 * 8], 3
      ret]])
  end)

  it("end it, are ignored, or are none", function()
    passes [[
      mov qword [0x402000], 1
      sys 13, 10, 0x402000, 0x402100, 8
      sys 62, 1000, 10
      sys 13, 10, 0, 0x402100, 8
      mov rax, [0x402100]
      is 1
      sys 62, 0, 17
      is 0
      sys 62, 1000, 0
      is 0
      sys 62, 7, 10
      is -3
      sys 234, 7, 1000, 10
      is -3
      sys 62, 1000, 99
      is -22
      sys 13, 9, 0x402000, 0, 8
      is -22
      sys 13, 65, 0x402000, 0, 8
      is -22
      sys 13, 10, 0x402000, 0, 9
      is -22]]
    local ending = programs.run "sys 62, 1000, 15\n leave 0"
    assert.equal("SIGTERM", ending.signal)
    assert.equal("killed by SIGTERM", tostring(ending))
    ending = programs.run "sys 62, 1000, 40\n leave 0"
    assert.equal("signal 40", ending.signal)
    ending = programs.run "mov eax, 15\n syscall"
    assert.equal("SIGSEGV", ending.signal)
  end)

  it("of a handler without a stack end it", function()
    local ending = programs.run(HANDLER .. "act 11, 4\n mov rsp, 8\n mov eax, [rsp]\n handler: ret"
      .. "\n times 0x5000 db 0")
    assert.equal("SIGSEGV", ending.signal)
  end)
end)
