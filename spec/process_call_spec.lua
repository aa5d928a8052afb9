-- SPDX-License-Identifier: MIT
-- The system calls about memory, time and itself that luna.process answers, each by programs of a
-- few lines, which check what Linux says of it: one that is content ends with 0, else with the
-- number of its check.

local helper = require "spec.support.helper"
local programs = require "spec.support.process"
local contains, passes = helper.contains, programs.checks

helper.kvm("system calls about memory", function()
  it("let the heap grow and shrink", function()
    local _, process = passes [[
      sys 12, 0
      mov rbx, rax
      test ebx, 0xfff
      jnz bad
      lea r12, [rbx + 0x2345]
      sys 12, r12
      is r12
      mov byte [rbx + 0x2344], 1
      sys 12, 16
      is r12
      lea r13, [rbx + 0x1000]
      sys 12, r13
      is r13
      lea r12, [rbx + 0x3000]
      sys 12, r12
      movzx eax, byte [rbx + 0x2344]
      is 0
      mov r12, 1 << 40
      sys 12, r12
      lea r12, [rbx + 0x3000]
      is r12
      jmp good
      bad: leave 99
      good: ]]
    contains(" rw- [heap]\n", process:maps())
  end)

  it("give memory, and take it back", function()
    local _, process = passes [[
      sys 9, 0, 0x5000, 3, 0x22, -1, 0
      mov rbx, rax
      above 0x7ff000000000
      mov dword [rbx + 0x4ffc], 7
      sys 11, rbx, 0x1000
      is 0
      mov eax, [rbx + 0x4ffc]
      is 7
      sys 9, rbx, 0x1000, 3, 0x100022, -1, 0
      is rbx
      sys 9, rbx, 0x1000, 3, 0x100022, -1, 0
      is -17
      sys 9, rbx, 0x5000, 3, 0x32, -1, 0
      is rbx
      mov eax, [rbx + 0x4ffc]
      is 0
      sys 28, rbx, 0x5000, 4
      is 0
      sys 11, rbx, 0x5001
      is 0
      sys 9, 0, 0, 3, 0x22, -1, 0
      is -22
      sys 9, 1, 0x1000, 3, 0x32, -1, 0
      is -22
      sys 9, 0, 0x1000, 3, 0x2, 9, 0
      is -9
      sys 9, 0, 0x1000, 3, 0x2, 1, 0
      is -19
      mov r12, 1 << 40
      sys 9, 0, r12, 3, 0x22, -1, 0
      is -12
      sys 9, 0, -1, 3, 0x22, -1, 0
      is -12
      sys 11, 1, 0x1000
      is -22
      sys 11, -4096, 0x1000
      is -22]]
    assert.is_nil(process:maps():find("rw%- *\n"))
  end)

  it("may reserve more than there is, and use it in part", function()
    passes [[
      mov r12, 1 << 40
      sys 9, 0, r12, 0, 0x4022, -1, 0
      mov rbx, rax
      above 0x7e0000000000
      sys 10, rbx, 0x10000, 3
      is 0
      mov [rbx + 0xfff8], rbx
      mov rax, [rbx + 0xfff8]
      is rbx
      mov r12, 1 << 40
      sys 11, rbx, r12
      is 0]]
  end)

  it("protect memory", function()
    for _, one in ipairs { { 1, "mov eax, [rbx]", "mov [rbx], eax" }, { 0, "nop", "mov al, [rbx]" },
      { 3, "mov [rbx], eax", "jmp rbx" }, { 5, "call rbx", "mov [rbx], eax" } } do
      local ending, output = programs.run(([[
        sys 9, 0, 0x3000, 3, 0x22, -1, 0
        mov rbx, rax
        mov byte [rbx], 0xc3
        mov byte [rbx + 0x1000], 0xc3
        sys 10, rbx, 0x1000, %d
        %s
        sys 1, 1, 0x400000 + 0x1000, 1
        mov byte [rbx + 0x1000], 0
        %s]]):format(one[1], one[2], one[3]))
      assert.equal("SIGSEGV", ending.signal)
      assert.equal(1, #output, one[2])
      assert.is_truthy(ending.exit.address)
    end
    passes [[
      sys 10, 0x100000, 0x1000, 1
      is -12
      sys 10, 0x401001, 0x1000, 1
      is -22
      sys 10, 0x401000, 0, 1
      is 0]]
  end)

  it("take nothing of the vCPU's own", function()
    local process = programs.make(programs.CHECKS .. [[
      pop rax
      pop rax
      pop rax
      mov rbx, [rax]
      sys 11, rbx, 0x1000
      is -22
      sys 10, rbx, 0x1000, 7
      is -22
      sys 9, rbx, 0x1000, 7, 0x32, -1, 0
      is -12
      sys 28, rbx, 0x1000, 4
      is -22
      sys 25, rbx, 0x1000, 0x2000, 1
      is -22]] .. programs.ROOM)
    -- The address is where the script has put it: on top of the stack.
    local system = process.cpu.system
    process.cpu:u64(process.cpu.rsp + 16, process.cpu.rsp)
    process.cpu:u64(process.cpu.rsp, system)
    assert.equal("exited with status 0", tostring(process:run { timeout = 20 }))
  end)

  it("move memory", function()
    passes [[
      sys 9, 0, 0x1000, 3, 0x22, -1, 0
      sys 9, 0, 0x3000, 3, 0x22, -1, 0
      mov rbx, rax
      mov [rbx + 0x1000], rbx
      sys 25, rbx, 0x3000, 0x2000, 1
      is rbx
      sys 25, rbx, 0x2000, 0x4000, 0
      is -12
      sys 25, rbx, 0x2000, 0x3000, 0
      is rbx
      sys 25, rbx, 0x3000, 0x100000, 1
      mov r12, rax
      mov rax, [r12 + 0x1000]
      is rbx
      mov [r12 + 0xff000], rbx
      sys 11, rbx, 0x3000
      is 0
      mov rax, [r12 + 0x1000]
      is rbx
      sys 25, r12, 0x100000, 0, 1
      is -22
      sys 25, 0x100000, 0x1000, 0x2000, 1
      is -14
      mov r13, 1 << 41
      sys 25, r12, 0x1000, r13, 1
      is -12]]
  end)

  it("read files into memory", function()
    passes([[
      sys 2, name, 0, 0
      mov ebx, eax
      sys 9, 0, 0x2000, 1, 2, rbx, 0x1000
      mov r12, rax
      movzx eax, byte [r12 + 1]
      is 'b'
      mov eax, [r12 + 0x1000]
      is 0
      sys 9, 0, 0x2000, 3, 1, rbx, 0
      is -13
      sys 9, 0, 0x2000, 3, 2, rbx, 1
      is -22
      jmp good
      name: db "/f", 0
      good: ]], { files = { ["/f"] = ("\0"):rep(0x1000) .. "ab" } })
  end)
end)

helper.kvm("system calls about time", function()
  it("have the script's clock, which sleep lets go ahead", function()
    passes([[
      sys 228, 1, 0x402000
      is 0
      mov rax, [0x402000]
      is 5
      mov rax, [0x402008]
      is 250000000
      mov qword [0x402010], 100
      mov qword [0x402018], 500000000
      sys 35, 0x402010, 0
      is 0
      sys 228, 1, 0x402000
      mov rax, [0x402000]
      is 105
      mov rax, [0x402008]
      is 750000000
      mov qword [0x402010], 200
      mov qword [0x402018], 0
      sys 230, 1, 1, 0x402010, 0
      sys 228, 1, 0x402000
      mov rax, [0x402000]
      is 200
      mov qword [0x402018], 1000000000
      sys 35, 0x402010, 0
      is -22
      sys 228, 99, 0x402000
      is -22
      sys 228, 1, 1
      is -14
      sys 229, 1, 0x402000
      mov rax, [0x402008]
      is 1
      sys 229, -1, 0
      is -22
      sys 100, 0x402000
      is 20000]], { clock = function() return 5.25 end })
  end)

  it("know what time it is", function()
    local before = os.time()
    local output = programs.passes [[
      sys 228, 0, text
      sys 96, text + 16, 0
      sys 201, text + 32
      sys 98, 0, text + 0x100
      sys 1, 1, text, 40
      leave 0
      text: times 0x200 db 0]]
    for _, at in ipairs { 1, 17, 33 } do
      local a, b, c, d = output:byte(at, at + 3)
      local seconds = a + b * 2 ^ 8 + c * 2 ^ 16 + d * 2 ^ 24
      assert.is_true(seconds >= before and seconds < before + 60)
    end
  end)
end)

helper.kvm("system calls about the process", function()
  it("have numbers, names and limits", function()
    passes [[
      sys 39
      is 1000
      sys 186
      is 1000
      sys 110
      is 1
      sys 102
      is 0
      sys 218, 0x402000
      is 1000
      sys 273, 0x402000, 24
      is 0
      sys 334, 0x402000, 32, 0, 0
      is -38
      sys 63, 0x402000
      is 0
      mov eax, [0x402000]
      is 'Linu'
      sys 302, 0, 3, 0, 0x402000
      is 0
      mov rax, [0x402000]
      is 8 << 20
      sys 302, 0, 9, 0, 0x402000
      mov rax, [0x402000]
      is -1
      sys 97, 7, 0x402000
      mov rax, [0x402000]
      is 1024
      sys 302, 0, 3, 0x402000, 0
      is -1
      sys 302, 0, 99, 0, 0x402000
      is -22
      sys 204, 0, 128, 0x402000
      is 8
      mov eax, [0x402000]
      is 1
      sys 204, 0, 4, 0x402000
      is -22
      sys 99, 0x402000
      is 0
      mov rax, [0x402020]
      is 256 << 20
      sys 24
      is 0
      sys 61, -1, 0, 0
      is -10
      sys 157, 15, 0x401000 + name - start, 0
      is 0
      sys 157, 16, 0x402000
      mov eax, [0x402000]
      is 'name'
      sys 157, 99
      is -22
      start equ 0x401000
      jmp good
      name: db "name", 0
      good: ]]
  end)

  it("set the bases of FS and GS", function()
    passes [[
      sys 158, 0x1002, 0x402000
      is 0
      mov qword [fs:8], 77
      mov rax, [0x402008]
      is 77
      sys 158, 0x1001, 0x402800
      mov qword [gs:0], 78
      mov rax, [0x402800]
      is 78
      sys 158, 0x1003, 0x403000
      mov rax, [0x403000]
      is 0x402000
      sys 158, 0x1004, 0x403000
      mov rax, [0x403000]
      is 0x402800
      sys 158, 0x1002, -1
      is -1
      sys 158, 0x3001, 0
      is -22]]
  end)

  it("give random bytes that are the same for the same seed", function()
    local source = "sys 318, text, 16, 0\n sys 1, 1, text, rax\n leave 0\n text: times 16 db 0"
    local first = programs.passes(source, { seed = 5 })
    assert.equal(16, #first)
    assert.equal(first, programs.passes(source, { seed = 5 }))
    assert.are_not.equal(first, programs.passes(source, { seed = 6 }))
  end)

  it("wait for nobody", function()
    passes [[
      mov dword [0x402004], 5
      sys 202, 0x402004, 0, 4, 0
      is -11
      sys 202, 0x402004, 128, 5, 0
      is -110
      sys 202, 0x402000, 0, 0, 0
      is -110
      sys 202, 0x402004, 1, 1, 0
      is 0
      sys 202, 0x402004, 9, 1, 0
      is -38]]
  end)
end)
