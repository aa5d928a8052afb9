-- SPDX-License-Identifier: MIT
-- luna.asm: the code that comes out, and the errors of sources, options and a missing nasm.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

describe("luna.asm", function()
  after_each(helper.clean)

  it("gives the bytes, for 16 bits where nothing is said", function()
    assert.equal("\xb8\x01\x00", luna.asm "mov ax, 1")
    assert.equal("\xb8\x01\x00", luna.asm("mov ax, 1", { bits = 16 }))
    assert.equal("\x66\xb8\x01\x00", luna.asm("mov ax, 1", { bits = 32 }))
    assert.equal("\x48\x89\xd8", luna.asm("mov rax, rbx", { bits = 64 }))
    assert.equal("\x66\xb8\x01\x00", luna.asm "bits 32\nmov ax, 1")
    assert.equal("", luna.asm "")
    assert.equal("a\0\n\255", luna.asm 'db "a", 0, 10, 255')
  end)

  it("places the code at org", function()
    assert.equal("\0\0", luna.asm "dw $")
    assert.equal("\x34\x12", luna.asm("dw $", { org = 0x1234 }))
    assert.equal("\xf0\xff\xff\xff\xab\0\0\0",
      luna.asm("dq $", { bits = 64, org = 0xabfffffff0 }))
  end)

  it("gives the labels of all sections, without constants and those of macros", function()
    local code, labels = luna.asm("five equ 5\nstart: mov rax, 1\n.again: jmp .again\n"
      .. "%macro m 0\n%%l: nop\n%endmacro\n m\nsection .data\nvalue: dq 1\n"
      .. "section .bss\nroom: resb 5", { bits = 64, org = 0xffffff8000 })
    assert.equal(16, #code)
    assert.equal("0xffffff8000 start\n0xffffff8005 start.again\n0xffffff8008 value\n"
      .. "0xffffff8010 room", tostring(labels))
    assert.equal(0xffffff8005, labels["start.again"])
    assert.same({ "start", 2 }, { labels:at(0xffffff8002) })
    assert.equal("start.again+0x1", labels:name(0xffffff8006))
    assert.same({}, select(2, luna.asm "nop"):list())
  end)

  it("names the line of an error in the source, what nasm says and the line itself", function()
    raises("luna.asm: nasm refuses the source\nline 3: error: ", function()
      luna.asm("nop\n\nmov ax, [\nnop")
    end)
    raises("\n    mov ax, [", function() luna.asm("nop\n\n  mov ax, [\nnop") end)
    raises("line 1: error: symbol `nowhere' ", function() luna.asm "jmp nowhere" end)
    local ok, message = pcall(luna.asm, "nop\nmov eax, nowhere\nhlt\nmov cl, elsewhere\n")
    assert.is_false(ok)
    assert.matches("\nline 2: error: .*nowhere.*\nline 4: error: .*elsewhere", message)
    assert.falsy(message:find("/tmp", 1, true), message)
    assert.falsy(message:find "\n$")
  end)

  it("leaves no file behind", function()
    local path = helper.file ""
    local mark = "mark" .. path:gsub("%W", "_")
    assert.equal(mark, luna.asm(('db "%s"'):format(mark)))
    assert.is_false((pcall(luna.asm, mark .. " nothing")))
    assert.equal("", (helper.sh(("grep -l %s %s* 2>/dev/null"):format(mark,
      path:gsub("[^/]*$", "")))))
  end)

  it("takes warnings for what they are", function()
    assert.equal("\xb0\x00", luna.asm "mov al, 0x100")
  end)

  it("refuses other options and values", function()
    raises("luna.asm: unknown option 'bit'; the options are bits, org",
      function() luna.asm("nop", { bit = 16 }) end)
    raises("luna.asm: a table of options expected, got number", function() luna.asm("nop", 16) end)
    raises("luna.asm: bits: 16, 32 or 64 expected, got 8",
      function() luna.asm("nop", { bits = 8 }) end)
    raises("luna.asm: bits: 16, 32 or 64 expected, got 64",
      function() luna.asm("nop", { bits = "64" }) end)
    raises("luna.asm: org: a whole number from 0", function() luna.asm("nop", { org = -1 }) end)
    raises("luna.asm: org: a whole number from 0", function() luna.asm("nop", { org = "0" }) end)
    raises("luna.asm: the source, a string, expected, got nil", function() luna.asm() end)
    raises("luna.asm: the source, a string, expected, got number", function() luna.asm(5) end)
  end)

  it("works where the parent ignores SIGCHLD, so that no child has a status", function()
    local path = helper.file 'print(#require("lunavisor").asm("hlt"))'
    assert.equal("1", (helper.sh("trap '' CHLD; exec " .. helper.command(path))))
  end)

  it("says what to install where nasm is missing", function()
    assert.equal("nil\tluna.asm: nasm is not installed; install the package 'nasm'\tnot_found",
      helper.child('print(require("lunavisor").asm "nop")', { env = { PATH = "/nonexistent" } }))
  end)
end)
