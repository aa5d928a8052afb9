-- SPDX-License-Identifier: MIT
-- luna run --linux: a program of Linux as the guest, with the shell's streams, files, system calls
-- and statuses.

local helper = require "spec.support.helper"
local program = require "spec.support.program"
local contains = helper.contains

local directory

local function run(words, before)
  return program.luna(directory, words, before)
end

local function ends(...) return program.ends(directory, ...) end

helper.kvm("luna run --linux", function()
  setup(function() directory = program.directory() end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  it("runs a program with the shell's streams", function()
    assert.equal("some text", ends(0, "some text", "run --linux cat", "printf 'some text' |"))
    assert.equal("61000a62", (run("run --linux cat | od -An -tx1 | tr -d ' '",
      "printf 'a\\0\\nb' |")))
    ends(3, "", "run --linux --timeout 120 args a -b")
    ends(2, "", "run --linux args -- >/dev/null")
  end)

  it("gives it files, an environment and a terminal", function()
    assert.equal("hello", (run "run --linux --root . open"))
    ends(2, "", "run --linux open")
    assert.equal("A=b=c", (run "run --linux --env A=b=c --env B= env"))
    ends(25, "", "run --linux terminal")
    ends(0, "", "run --linux --terminal terminal")
    ends(126, "luna: --env: NAME=VALUE expected, got A", "run --linux --env A env")
  end)

  it("shows its system calls", function()
    local output = run "run --linux --calls args 2>&1"
    assert.matches("^luna: exit_group%(0x1, .*%) = %?$", output)
  end)

  it("ends as the program does, and tells what went wrong", function()
    local text = ends(139, "luna: wrong: killed by SIGSEGV: exception (#PF", "run --linux wrong")
    contains("Page walk: gva 0x8 leads nowhere", text)
    ends(137, "luna: big: killed by SIGKILL", "run --linux -m 1M big")
    text = ends(124, "luna: stay has not ended within 0.2 s: timeout at rip",
      "run --linux --timeout 0.2 stay")
    contains("Registers:", text)
    ends(38, "luna: socket: the system call socket (41) at rip ", "run --linux socket")
  end)

  it("says what it cannot run, and ends with 126", function()
    ends(126, "luna: none: it cannot be opened", "run --linux none")
    ends(126, "luna: hello.lua: ELF64: e_ident at offset 0x0", "run --linux hello.lua")
    ends(126, "luna: memory: a number of bytes", "run --linux -m x cat")
    ends(126, "luna: --timeout: seconds above 0 expected", "run --linux --timeout 0 cat")
    ends(126, "luna: --root needs --linux", "run --root . hello.lua")
    ends(126, "luna: --env needs --linux", "run --env A=b hello.lua")
    ends(126, "luna: --json is not for --linux", "run --json --linux cat")
    ends(126, "luna: cannot open /no: it is missing", "run --linux cat",
      "LUNA_ACCEL=kvm LUNA_KVM_DEVICE=/no")
  end)
end)
