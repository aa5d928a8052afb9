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

-- Boot sectors that are called as others are: one that says what a BASIC does when a key is
-- pressed, and two that draw so many colours.
local SAYS = [[
  mov ax, 0x0e00 + '>'
  int 0x10
  mov ah, 0
  int 0x16
  cmp al, '1'
  jne $
  mov si, text
  next: lodsb
  mov ah, 14
  int 0x10
  test al, al
  jnz next
  jmp $
  text: db 13, 10, ">list", 13, 10, "10 print 6*7", 13, 10, "42", 13, 10, ">", 0]]
local DRAWS = [[
  mov ax, 0x13
  int 0x10
  push 0xa000
  pop es
  mov cx, %d
  next: mov di, cx
  mov [es:di], cl
  loop next
  jmp $]]

local function boot_images()
  local path = helper.sh "mktemp -d"
  helper.keep { close = function() helper.sh("rm -r " .. path) end }
  local sources = { basic = SAYS, pillman = DRAWS:format(5), invaders = DRAWS:format(3) }
  for name, source in pairs(sources) do
    write(("%s/%s.img"):format(path, name), assert(luna.asm(source
      .. "\n times 510 - ($ - $$) db 0\n dw 0xaa55", { bits = 16, org = 0x7c00 })))
  end
  return path
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

  it("boots the images that are there, and looks at their screens", function()
    contains("bootsectors is left out: LUNA_BOOT_IMAGES does not say in which directories",
      (helper.sh "env -u LUNA_BOOT_IMAGES scripts/clients bootsectors"))
    local text, status = helper.sh(("LUNA_BOOT_IMAGES=/nonexistent:%s scripts/clients --alone "
      .. "--seconds 6 bootsectors"):format(boot_images()))
    if text:find "of the package seabios" then pending "seabios is not installed" end
    assert.truthy(text:find "\nbootBASIC +PASS +2 +0 +0 ", text)
    assert.truthy(text:find "\npillman +PASS +1 +0 +0 ", text)
    assert.truthy(text:find "\ninvaders +FAIL +0 +1 +0 ", text)
    contains("there is no mikeos.flp or mikeos.img in LUNA_BOOT_IMAGES", text)
    contains("worse: invaders", text)
    assert.equal(1, status)
  end)

  it("refuses what it does not know", function()
    contains("usage: clients", (clients "--nonsense"))
    contains("there is no client nobody; there are: kvm_unit_tests seabios",
      (clients "nobody"))
  end)
end)
