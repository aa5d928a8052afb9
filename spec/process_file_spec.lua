-- SPDX-License-Identifier: MIT
-- The system calls about files that luna.process answers, each by programs of a few lines, which
-- check what Linux says of it: one that is content ends with 0, else with the number of its check.

local helper = require "spec.support.helper"
local programs = require "spec.support.process"
local passes = programs.checks

helper.kvm("system calls about files", function()
  local function try(source, options) return passes(source .. [[

    jmp good
    name: db "/dir/file", 0
    dir: db "dir", 0
    there: db "./../dir//file", 0
    away: db "/../../outside", 0
    none: db "/none", 0
    empty: db 0
    good: ]], options or { files = { ["/dir/file"] = "0123456789" } })
  end

  it("open, read, seek and close", function()
    try [[
      sys 257, -100, name, 0, 0
      is 3
      sys 0, 3, 0x402000, 4
      is 4
      mov eax, [0x402000]
      is '0123'
      sys 8, 3, -2, 2
      is 8
      sys 0, 3, 0x402000, 100
      is 2
      sys 0, 3, 0x402000, 100
      is 0
      sys 17, 3, 0x402000, 3, 5
      is 3
      sys 8, 3, 0, 1
      is 10
      sys 8, 3, -11, 1
      is -22
      sys 8, 3, 0, 7
      is -22
      sys 8, 1, 0, 0
      is -29
      sys 32, 3
      is 4
      sys 3, 3
      is 0
      sys 3, 3
      is -9
      sys 0, 3, 0x402000, 1
      is -9
      sys 0, 4, 0x402000, 1
      is 0
      sys 33, 4, 9
      is 9
      sys 292, 4, 4, 0
      is -22
      sys 72, 9, 0, 20
      is 20
      sys 72, 9, 3, 0
      is 0
      sys 72, 1, 3, 0
      is 1
      sys 72, 77, 3, 0
      is -9
      sys 72, 9, 99, 0
      is -22]]
  end)

  it("find paths, and none above the root", function()
    try [[
      sys 2, there, 0, 0
      is 3
      sys 2, dir, 0x10000, 0
      is 4
      sys 257, 4, dir, 0, 0
      is -2
      sys 257, 4, name + 5, 0, 0
      is 5
      sys 257, 3, dir, 0, 0
      is -20
      sys 257, 99, dir, 0, 0
      is -9
      sys 2, away, 0, 0
      is -2
      sys 2, none, 0, 0
      is -2
      sys 2, empty, 0, 0
      is -2
      sys 2, name, 0x10000, 0
      is -20
      sys 2, name, 1, 0
      is -30
      sys 2, none, 0x40, 0
      is -30
      sys 2, 0, 0, 0
      is -14
      sys 0, 4, 0x402000, 1
      is -21
      sys 80, dir
      is 0
      sys 79, 0x402000, 100
      is 5
      mov rax, [0x402000]
      is '/dir'
      sys 79, 0x402000, 2
      is -34
      sys 2, name + 5, 0, 0
      is 6
      sys 80, name
      is -20
      sys 80, none
      is -2]]
  end)

  it("say what is known of a file", function()
    try [[
      sys 4, name, 0x402000
      is 0
      mov rax, [0x402000 + 48]
      is 10
      mov eax, [0x402000 + 24]
      is 0o100444
      sys 262, -100, dir, 0x402000, 0
      is 0
      mov eax, [0x402000 + 24]
      is 0o040555
      sys 5, 1, 0x402000
      is 0
      mov eax, [0x402000 + 24]
      is 0o020620
      sys 262, 1, empty, 0x402000, 0x1000
      is 0
      sys 5, 55, 0x402000
      is -9
      sys 4, none, 0x402000
      is -2
      sys 4, name, 0x10
      is -14
      sys 21, name, 4
      is 0
      sys 21, name, 2
      is -30
      sys 269, -100, none, 0
      is -2
      sys 89, name, 0x402000, 10
      is -22
      sys 89, none, 0x402000, 10
      is -2
      sys 332, 0, 0, 0, 0, 0x402000
      is -38]]
  end)

  it("read a directory of the host", function()
    local path = helper.sh "mktemp -d"
    helper.keep { close = function() os.execute("rm -rf " .. path) end }
    helper.sh(("cd %s && mkdir dir && echo text >dir/file && ln -s dir/file link"):format(path))
    try([[
      sys 2, name, 0, 0
      is 3
      sys 0, 3, 0x402000, 100
      is 5
      sys 2, dir, 0x10000, 0
      is 4
      sys 4, name, 0x402000
      is 0
      mov rax, [0x402000 + 48]
      is 5
      sys 2, away, 0, 0
      is -2]], { root = path })
  end)

  it("write and read in parts", function()
    local output = try([[
      mov qword [0x402000], name
      mov qword [0x402008], 4
      mov qword [0x402018], 0
      mov qword [0x402020], dir
      mov qword [0x402028], 3
      sys 20, 1, 0x402000, 3
      is 7
      sys 20, 9, 0x402000, 3
      is -9
      sys 20, 1, 0x402000, -1
      is -22
      mov qword [0x402020], 8
      sys 20, 1, 0x402000, 3
      is 4
      mov qword [0x402000], 0x403000
      mov qword [0x402020], 0x403010
      sys 19, 0, 0x402000, 3
      is 7
      mov eax, [0x403010]
      is 'lin'
      sys 1, 1, 0x8, 5
      is -14
      sys 1, 0, name, 5
      is -9
      sys 0, 0, 0, 100
      is -14]], { stdin = "1234lin and more" })
    assert.equal("/dirdir/dir", output)
  end)

  it("send files", function()
    local output = try [[
      sys 2, name, 0, 0
      sys 40, 1, 3, 0, 4
      is 4
      mov qword [0x402000], 7
      sys 40, 1, 3, 0x402000, 100
      is 3
      mov rax, [0x402000]
      is 10
      sys 40, 3, 3, 0, 4
      is -9
      sys 40, 1, 1, 0, 4
      is -9]]
    assert.equal("0123789", output)
  end)

  it("poll, and are no terminal unless the script says so", function()
    local source = [[
      mov dword [0x402000], 1
      mov dword [0x402004], 0x00ff0005
      mov dword [0x402008], 55
      mov dword [0x402010], -1
      sys 7, 0x402000, 3, 0
      is 2
      mov ax, [0x402006]
      movzx eax, ax
      is 5
      movzx eax, word [0x40200e]
      is 0x20
      sys 16, 99, 0x5401, 0x402000
      is -9
      sys 16, 0, 0x5401, 0x402000
      is %d
      sys 16, 0, 0x9999, 0x402000
      is -25]]
    try(source:format(-25))
    try(source:format(0) .. "\n" .. [[
      sys 16, 1, 0x5413, 0x403000
      is 0
      mov eax, [0x403000]
      is 24 + 80 * 65536
      sys 16, 1, 0x5402, 0x402000
      is 0
      sys 16, 1, 0x540f, 0x402000
      mov eax, [0x402000]
      is 1000]], { terminal = true })
  end)
end)
