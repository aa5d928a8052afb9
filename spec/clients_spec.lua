-- SPDX-License-Identifier: MIT
-- scripts/clients, with a client's tests that are made here.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local soft = require "spec.support.soft"
local contains = helper.contains

-- A kernel as kvm-unit-tests builds it: it prints, and writes a status to port 0xf4.
local KERNEL = [[
  head: dd 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
  dd head, head, 0, 0, start
  start: mov esi, text
  mov dx, 0x3f8
  next: lodsb
  test al, al
  jz done
  out dx, al
  jmp next
  done: mov eax, %d
  out 0xf4, eax
  hlt
  text: db "%s", 10, 0]]

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

-- A directory where tests seem to have been built.
local function built()
  local path = os.tmpname()
  os.remove(path)
  helper.keep { close = function() helper.sh("rm -r " .. path) end }
  helper.sh("mkdir -p " .. path .. "/x86")
  write(path .. "/config.mak", "SRCDIR=.\nARCH=x86_64\n")
  write(path .. "/x86/unittests.cfg", "# comment\n[good]\nfile = good.flat\nsmp = 1\n"
    .. "[bad]\nfile = bad.flat\n[other]\nfile = good.flat\narch = i386\n[gone]\nfile = gone.flat\n")
  for name, row in pairs { good = { 0, "PASS: one" }, bad = { 1, "FAIL: two" } } do
    write(path .. "/x86/" .. name .. ".flat",
      assert(luna.asm(KERNEL:format(row[1], row[2]), { bits = 32, org = 0x100000 })))
  end
  return path
end

local function clients(arguments, directory)
  return helper.sh(("LUNA_KVM_UNIT_TESTS=%s scripts/clients %s"):format(directory or "''",
    arguments))
end

soft.block("scripts/clients", function()
  it("leaves out a client that is not there, and says what it needs", function()
    local text, status = clients "kvm-unit-tests"
    contains("kvm_unit_tests is left out: LUNA_KVM_UNIT_TESTS does not say", text)
    assert.equal(0, status)
    contains("is no directory where it was configured", (clients("kvm-unit-tests", "/nonexistent")))
  end)

  it("runs its tests, counts, and compares with an earlier run", function()
    local directory = built()
    local saved = helper.file ""
    local text, status = clients("--alone --save " .. saved .. " kvm-unit-tests", directory)
    assert.truthy(text:find "\ngood +PASS +1 +0 +0 ")
    assert.truthy(text:find "\nbad +FAIL +0 +1 +0 ")
    assert.truthy(text:find "\nother +%- +for i386 alone")
    assert.truthy(text:find "\ngone +%- +not built")
    contains("worse: bad", text)
    assert.equal(1, status)
    text, status = clients("kvm-unit-tests --compare " .. saved, directory)
    assert.truthy(text:find "\nbad +FAIL.-FAIL")
    assert.equal(0, status) -- as bad as it was
  end)

  it("refuses what it does not know", function()
    contains("usage: clients", (clients "--nonsense"))
    contains("there is no client nobody; there are: kvm_unit_tests seabios",
      (clients "nobody"))
  end)
end)
