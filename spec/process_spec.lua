-- SPDX-License-Identifier: MIT
-- luna.process: how a program begins, what it gets and gives, how it ends, and what a script has to
-- say to its system calls.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local programs = require "spec.support.process"
local run, contains = programs.run, helper.contains

local HELLO = [[
  sys 1, 1, text, 6
  sys 1, 2, text, 6
  leave 3
  text: db "hello", 10]]

helper.kvm("a process", function()
  it("writes, and ends with its status", function()
    local errors
    local ending, output, process = run(HELLO, { stderr = function(text) errors = text end })
    assert.equal("exited", ending.kind)
    assert.equal(3, ending.status)
    assert.equal("exited with status 3", tostring(ending))
    assert.is_nil(ending.exit)
    assert.equal("hello\n", output)
    assert.equal("hello\n", errors)
    assert.equal("process prog (exited with status 3)", tostring(process))
    assert.equal(ending, process:run())
    assert.equal(ending, process.ending)
  end)

  it("gets its arguments and its environment", function()
    -- Writes each string of argv and envp, with its zero byte; the status is argc.
    local ending, output = run([[
      mov rbx, rsp
      add rbx, 8
      next: mov rsi, [rbx]
      add rbx, 8
      test rsi, rsi
      jz gap
      mov rdx, rsi
      count: inc rdx
      cmp byte [rdx - 1], 0
      jne count
      sub rdx, rsi
      mov edi, 1
      mov eax, 1
      syscall
      jmp next
      gap: inc r15
      cmp r15, 2
      jne next
      leave [rsp] ]], { args = { "one", "" }, env = { HOME = "/", A = "b=c" } })
    assert.equal(3, ending.status)
    assert.equal("prog\0one\0\0A=b=c\0HOME=/\0", output)
  end)

  it("begins with a stack and an auxiliary vector as Linux makes them", function()
    local output = programs.passes([[
      mov eax, esp
      and eax, 15
      jnz bad
      test rdx, rdx
      jnz bad
      mov rbx, rsp
      skip: add rbx, 8
      cmp qword [rbx], 0
      jne skip
      skip2: add rbx, 8
      cmp qword [rbx], 0
      jne skip2
      again: add rbx, 8
      cmp qword [rbx], 0
      je done
      sys 1, 1, rbx, 16
      add rbx, 8
      jmp again
      bad: leave 1
      done: leave 0]])
    local values = {}
    for at = 1, #output, 16 do
      local low = { output:byte(at, at + 15) }
      values[low[1]] = low[9] + low[10] * 2 ^ 8 + low[11] * 2 ^ 16 + low[12] * 2 ^ 24
        + low[13] * 2 ^ 32 + low[14] * 2 ^ 40
    end
    assert.equal(0x1000, values[6])    -- AT_PAGESZ
    assert.equal(0x401000, values[9])  -- AT_ENTRY
    assert.equal(56, values[4])        -- AT_PHENT
    assert.equal(1, values[5])         -- AT_PHNUM
    assert.equal(0, values[23])        -- AT_SECURE
    assert.is_true(values[25] > 0x7fffff000000) -- AT_RANDOM
    assert.equal(luna.u64.tonumber(luna.u64.band(values[16], 2 ^ 25)), 2 ^ 25) -- AT_HWCAP: SSE
  end)

  it("reads what the script gives it", function()
    local ECHO = [[
      again: sys 0, 0, 0x402000, 4
      test eax, eax
      jz done
      sys 1, 1, 0x402000, rax
      jmp again
      done: leave 0
      times 0x2000 db 0]]
    assert.equal("some text", programs.passes(ECHO, { stdin = "some text" }))
    assert.equal("", programs.passes(ECHO))
    local parts = { "a", "longer part", "c" }
    assert.equal("alonger partc", programs.passes(ECHO, { stdin = function(count)
      assert.is_true(count > 0)
      return table.remove(parts, 1)
    end }))
  end)

  it("goes on after its time was up", function()
    local process, output = programs.make [[
      again: cmp byte [0x401100], 0
      je again
      sys 1, 1, 0x401100, 1
      leave 0
      times 0x200 db 0]]
    local ending = process:run { timeout = 0.1 }
    assert.equal("timeout", ending.kind)
    assert.equal(124, ending.status)
    contains("timeout: timeout at rip 0x40100", tostring(ending))
    assert.is_false(process.ending)
    assert.equal("process prog (not ended)", tostring(process))
    process.cpu:write(0x401100, "!")
    assert.equal("exited", process:run({ timeout = 20 }).kind)
    assert.equal("!", output())
  end)

  it("is stopped by the script, and goes on", function()
    local process, output = programs.make(HELLO)
    process:on("write", function(call)
      process:on("write", nil)
      process.cpu:stop "here"
      return call:default()
    end)
    local ending = process:run { timeout = 20 }
    assert.equal("stopped", ending.kind)
    assert.equal("here", ending.value)
    assert.is_nil(ending.status)
    assert.equal("hello\n", output())
    assert.equal(3, process:run({ timeout = 20 }).status)
  end)

  it("is as its vCPU is when that cannot go on", function()
    local process = programs.make "jmp $"
    assert.equal("timeout", process:run({ timeout = 0.05 }).kind)
    process.vm.default:unmap(2 ^ 32, 2 ^ 28)
    local ending = process:run { timeout = 60 }
    assert.equal("failed", ending.kind)
    assert.equal(125, ending.status)
  end)

  it("shows its memory", function()
    local _, _, process = run(HELLO)
    local lines = process:maps()
    contains("000000401000-000000402000 rwx program\n", lines)
    contains("7fffff7fe000-7fffffffe000 rw- [stack]", lines)
    contains("--- [lunavisor]\n", lines)
  end)

  it("leaves nothing behind", function()
    local before = luna.live().vm
    local process = assert(luna.process { bytes = programs.program(HELLO) })
    assert.equal(before + 1, luna.live().vm)
    process:close()
    process:close()
    assert.equal(before, luna.live().vm)
    assert.has_error(function() process:run() end, "attempt to use a closed vcpu")
  end)
end)

helper.kvm("a process that fails", function()
  -- The kind of its end, for a few instructions.
  local function dies(source)
    local ending = run(source)
    assert.equal("killed", ending.kind)
    return ending
  end

  it("ends by the signal that Linux sends", function()
    local faults = {
      SIGILL = "ud2", SIGFPE = "xor ecx, ecx\n div ecx", SIGTRAP = "int3",
      SIGSEGV = "mov eax, [8]", SIGABRT = "sys 39\n sys 234, rax, rax, 6\n leave 0",
    }
    local numbers = { SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGFPE = 8, SIGSEGV = 11 }
    for name, source in pairs(faults) do
      local ending = dies(source)
      assert.equal(name, ending.signal)
      assert.equal(128 + numbers[name], ending.status)
    end
  end)

  it("may not do what is a kernel's", function()
    for _, source in ipairs { "hlt", "out 0x80, al", "in al, dx", "mov cr3, rax", "wrmsr", "cli",
      "mov rax, 0xfebf0000\n mov eax, [rax]", "mov rax, 1 << 63\n mov eax, [rax]",
      "mov rax, 1 << 50\n jmp rax" } do
      assert.equal("SIGSEGV", dies(source).signal, source)
    end
  end)

  it("leaves where it happened, with its symbols", function()
    local ending, _, process = run("nop\n mov [0x10], eax", nil, { main = 0, behind = 0x20 })
    assert.matches("^killed by SIGSEGV: exception %(#PF, error code 0x6, address 0x10%)"
      .. " at rip 0x401001 <main%+0x1>: mov", tostring(ending))
    contains("gva 0x10 leads nowhere", ending.exit:explain().refused)
    assert.equal(0x401000, process.symbols.main)
    assert.equal("main", process.vm:symbol(0x401000))
  end)

  it("may not write or execute where it has not asked for it", function()
    local code = helper.code("mov eax, [0x403000]\n mov [0x402000], eax\n mov [0x403000], eax",
      64, 0x401000)
    local file = image.elf { entry = 0x401000, segments = {
      { data = code, vaddr = 0x401000, flags = 5 }, { data = "data", vaddr = 0x402000, flags = 6 },
      { data = "data", vaddr = 0x403000, flags = 4 } } }
    local process = helper.keep(luna.process { bytes = file })
    local ending = process:run { timeout = 20 }
    assert.equal("#PF", ending.exit.name)
    assert.equal("0x403000", luna.hex(ending.exit.address))
    assert.equal(7, ending.exit.error_code)
    ending = run "lea rax, [rsp - 8]\n jmp rax"
    assert.equal(0x15, ending.exit.error_code)
  end)

  it("is out of memory", function()
    local ending = run("mov rbx, rsp\n again: sub rbx, 0x1000\n mov [rbx], eax\n jmp again",
      { memory = "1M" })
    assert.equal("SIGKILL", ending.signal)
    assert.equal(137, ending.status)
  end)
end)

helper.kvm("system calls", function()
  it("are answered by the script", function()
    local seen
    local process, output = programs.make [[
      sys 2, name, 0xfff, -1
      mov ebx, eax
      sys 1, 1, name, 4
      leave rbx
      name: db "file", 0]]
    process:on("open", function(call, a, b, c, ...)
      seen = { call.name, call.number, call:text(a), b, luna.hex(c), select("#", ...) }
      assert.equal(process, call.process)
      assert.equal(a, call.args[1])
      assert.equal("0x401", luna.hex(call.rip):sub(1, 5))
      return 42
    end)
    process:on("write", function(call, fd, address, size)
      assert.equal("file", call:read(address, size))
      call:write(address, "FI")
      local result = call:default()
      assert.equal(4, result)
      assert.equal(1, fd)
      return result
    end)
    assert.equal(42, process:run({ timeout = 20 }).status)
    assert.same({ "open", 2, "file", 0xfff, "0xffffffffffffffff", 3 }, seen)
    assert.equal("FIle", output())
  end)

  it("fail with the error that it names", function()
    local process = programs.make "sys 41, 2, 1, 0\n neg eax\n leave rax"
    process:on("socket", function() return "EACCES" end)
    assert.equal(13, process:run({ timeout = 20 }).status)
  end)

  it("fail with EFAULT where its functions meet a bad address", function()
    local process = programs.make "sys 41, 8, 1, 0\n neg eax\n leave rax"
    process:on("socket", function(call, address) return #call:text(address) end)
    assert.equal(14, process:run({ timeout = 20 }).status)
  end)

  it("have results that make sense", function()
    local process = programs.make "sys 41, 2, 1, 0\n leave rax"
    local given
    process:on("socket", function() return given end)
    for _, value in ipairs { "ENOENTRY", {}, 1.5, true } do
      given = value
      local ok, message = pcall(process.run, process, { timeout = 20 })
      assert.is_false(ok)
      contains("the handler of the system call socket has returned ", message)
      contains("a number or an error's name such as \"ENOENT\" expected", message)
    end
    given = 7 -- the call is made again
    assert.equal(7, process:run({ timeout = 20 }).status)
  end)

  it("raise the script's errors", function()
    local process = programs.make "sys 41, 2, 1, 0\n leave 9"
    process:on("socket", function() error "no sockets" end)
    local ok, message = pcall(process.run, process, { timeout = 20 })
    assert.is_false(ok)
    contains("no sockets", message)
    contains("process_spec.lua", message)
    process:on("socket", nil)
    process:on("socket", function() return 0 end)
    assert.equal(9, process:run({ timeout = 20 }).status)
  end)

  it("that nobody answers are told by name, once", function()
    local told = {}
    local ending = run("sys 41, 2\n mov ebx, eax\n sys 41, 2\n sys 999\n add ebx, eax\n neg ebx\n"
      .. "leave rbx", { log = function(text) told[#told + 1] = text end })
    assert.equal(2 * 38, ending.status) -- ENOSYS
    assert.equal(2, #told)
    contains("prog: the system call socket (41) at rip 0x40100", told[1])
    contains('is not answered (ENOSYS); process:on("socket", ...) answers it', told[1])
    contains("call 0x3e7 (999)", told[2])
  end)

  it("are shown", function()
    local lines = {}
    run("sys 9, 0, 0, 0\n leave 0", { trace = function(text) lines[#lines + 1] = text end })
    assert.matches("^mmap%(0x0, 0x0, 0x0, .*%) = ENODEV$", lines[1])
    assert.matches("^exit_group%(0x0, .*%) = %?$", lines[2])
  end)

  it("leave all registers but three as they were", function()
    programs.passes [[
      mov rbx, 0x1122334455667788
      movq xmm7, rbx
      mov r8, rbx
      mov rdx, rbx
      stc
      mov eax, 39
      syscall
      next: jnc bad
      cmp eax, 1000
      jne bad
      mov rax, next
      cmp rcx, rax
      jne bad
      test r11, 1
      jz bad
      cmp r8, rbx
      jne bad
      cmp rdx, rbx
      jne bad
      movq rax, xmm7
      cmp rax, rbx
      jne bad
      leave 0
      bad: leave 1]]
  end)
end)

helper.kvm("luna.process", function()
  local function refused(code, text, source, options)
    helper.refused(code, text, luna.process(source, options))
  end

  it("refuses what is no static program for x86-64", function()
    local elf = { data = "\xf4", vaddr = 0x401000 }
    local function file(options) return { bytes = image.elf(options), name = "prog" } end
    refused("not_found", "luna.process: /no/such: it cannot be opened: ", "/no/such")
    refused("format", "luna.process: x: ELF64: e_ident at offset 0x0 is 73 63 72 69: 7f 45 4c 46",
      { bytes = "script", name = "x" })
    refused("unsupported", "EI_CLASS at offset 0x4 is 0x1: 0x2: a 64-bit program",
      file { bits = 32, segments = { elf } })
    refused("unsupported", "is 0x3: no PT_INTERP (linked with -static) expected",
      file { segments = { elf, { data = "/lib/ld.so\0", type = "interp" } } })
    refused("format", "p_vaddr of program header 0 at offset 0x50 is 0x1000: 0x1 bytes from "
      .. "0x10000 to 0x", file { segments = { { data = "x", vaddr = 0x1000 } } })
    refused("format", "is 0x7fffffffff000: 0x1 bytes",
      file { segments = { { data = "x", vaddr = 0x7fffffffff000 } } })
    refused("format", "segment 1, at 0x401000, does not lie behind the one before, which ends at "
      .. "0x401001", file { segments = { elf, elf } })
    refused("not_found", "its segments need more than the memory of the process",
      file { segments = { { data = ("x"):rep(2 ^ 21), vaddr = 0x401000 } } }, { memory = "1M" })
    local process = helper.keep(luna.process(file { segments = { elf } }))
    local system = process.cpu.system
    refused("busy", "lies over the system area of the vCPU, at 0x",
      file { segments = { { data = "x", vaddr = system + 0x1000 } } })
    refused("limit", "its arguments and its environment take 0x",
      file { segments = { elf } }, { args = { ("x"):rep(2 ^ 20) } })
  end)

  it("takes programs whose segments share a page, and gives that the rights of both", function()
    local code = helper.code("inc dword [0x401800]\n mov edi, [0x401800]\n mov eax, 60\n syscall",
      64, 0x401000)
    local file = image.elf { entry = 0x401000, segments = {
      { data = code, vaddr = 0x401000, flags = 5 },
      { data = image.le32(6), vaddr = 0x401800, flags = 6, memsz = 0x3000 } } }
    local process = helper.keep(luna.process { bytes = file })
    assert.equal(7, process:run({ timeout = 20 }).status)
    contains("000000401000-000000402000 rwx program\n000000402000-000000405000 rw- program",
      process:maps())
  end)

  it("moves position-independent programs", function()
    local file = image.elf { type = 3, entry = 0x10, segments = { { data = ("\xf4"):rep(16)
      .. helper.code("lea rdi, [rel $$]\n shr rdi, 40\n mov eax, 60\n syscall", 64, 0x10),
      vaddr = 0 } } }
    local process = helper.keep(luna.process { bytes = file })
    assert.equal(0x55, process:run({ timeout = 20 }).status)
  end)

  it("does not mind damaged symbols", function()
    local bytes = programs.program("leave 0", { main = 0 })
    local at = bytes:find("\0main\0", 1, true)
    local process = helper.keep(luna.process { bytes = image.patch(bytes, at - 25,
      ("\xff"):rep(20)) })
    assert.equal(0, process:run({ timeout = 20 }).status)
    assert.is_nil(process.symbols:find "nothing")
  end)
end)
