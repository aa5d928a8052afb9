-- SPDX-License-Identifier: MIT
-- Installing, uninstalling, the rock, and what scripts/setup says where it cannot install. It works
-- on a copy of the sources, which it builds fast, for that is no subject here. LUNA_SKIP=packaging
-- leaves it out.

local compiled = require "spec.support.compiled"
local helper = require "spec.support.helper"
local support = require "spec.support.files"
local markdown = require "spec.support.markdown"

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- What the test run itself has set and the commands below must not see.
local foreign = { "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "BUILD", "LUA_PATH",
  "LUA_CPATH", "LUNAVISOR_LIBRARY", "LUNAVISOR_HYPERVISOR_LIBRARY", "LD_LIBRARY_PATH",
  "PKG_CONFIG_PATH" }

-- Runs a shell script; returns what it printed and whether it succeeded.
local function sh(script)
  local pipe = assert(io.popen("env -u " .. table.concat(foreign, " -u ") .. " sh -c " ..
    quote(script) .. " 2>&1 </dev/null; echo $?"))
  local text = pipe:read "*a"
  pipe:close()
  local output, status = text:match "^(.-)\n?(%d+)\n$"
  return output, status == "0"
end

local function must(script)
  local output, ok = sh(script)
  assert(ok, script .. "\n" .. output)
  return output
end

local function has(command)
  local _, ok = sh("command -v " .. command)
  return ok
end

local function fill(text, values)
  return (text:gsub("@(%w+)", values))
end

-- The programs for the Hypervisor framework, and what the page of the examples says they print.
local names, pictures = {}, {}
for name in helper.sh("ls examples/hvf"):gmatch "(%S+)%.c" do names[#names + 1] = name end
for _, block in ipairs(markdown.page("examples/README.md").blocks) do
  if block.language == "text" then pictures[block.heading] = block.text:gsub("\n$", "") end
end

describe("packaging", function()
  if (os.getenv "LUNA_SKIP" or ""):find "packaging" then
    pending "LUNA_SKIP says so"
    return
  end

  local at = {}
  local function run(script)
    return must(fill(script, at))
  end

  setup(function()
    at.tmp = must "mktemp -d"
    at.tree = quote(at.tmp .. "/a tree %d~é") -- as somebody's directory may be called
    at.prefix = at.tmp .. "/prefix"
    run [[mkdir @tree && tar -cf - --exclude=./.git --exclude=./build . | tar -C @tree -xf -
      export CFLAGS=-O0
      make -s -C @tree && make -s -C @tree install PREFIX=@prefix >@tmp/said]]
  end)

  teardown(function()
    if at.tmp then must("rm -rf " .. at.tmp) end
  end)

  it("puts everything below DESTDIR, and nothing there knows DESTDIR", function()
    run "CFLAGS=-O0 make -s -C @tree install DESTDIR=@tmp/stage PREFIX=/opt/luna"
    local files = run "cd @tmp/stage && find . ! -type d | sort"
    for _, name in ipairs {
      "include/lunavisor.h", "include/Hypervisor/hv.h", "lib/libHypervisor.a",
      "lib/libHypervisor.so", "lib/libHypervisor.so.0", "lib/libHypervisor.so.0.1.0",
      "lib/pkgconfig/Hypervisor.pc",
      "lib/liblunavisor.a", "lib/liblunavisor.so", "lib/liblunavisor.so.0",
      "lib/liblunavisor.so.0.1.0", "lib/pkgconfig/lunavisor.pc",
      "lib/lua/5.4/lunavisor/binding/native.so",
      "share/lua/5.4/lunavisor/init.lua", "share/lua/5.1/lunavisor/init.lua",
      "share/lua/5.1/lunavisor/binding/ffi.lua", "share/lua/5.1/lunavisor/binding/cdef.lua",
      "share/lua/5.1/lunavisor/binding/library.lua", "share/lua/5.4/lunavisor/hv.lua",
      "share/lua/5.1/lunavisor/hv/header.lua", "share/lua/5.1/lunavisor/hv/library.lua",
      "lib/lua/5.4/lunavisor/hv/native.so", "bin/luna",
      "share/lua/5.4/lunavisor/program/modules.lua54",
      "share/lua/5.1/lunavisor/program/modules.luajit",
      "share/man/man1/luna.1", "share/bash-completion/completions/luna",
      "share/zsh/site-functions/_luna", "share/fish/vendor_completions.d/luna.fish",
    } do
      local found = (files .. "\n"):find("./opt/luna/" .. name .. "\n", 1, true)
      assert.truthy(found, name .. "\n" .. files)
    end
    assert.equal("", run "grep -rlF @tmp/stage @tmp/stage || true")
    run "make -s -C @tree uninstall DESTDIR=@tmp/stage PREFIX=/opt/luna"
    assert.equal("", run "find @tmp/stage ! -type d")
  end)

  it("has a manual page and completions that fit the program", function()
    local page = run "cat @prefix/share/man/man1/luna.1"
    assert.matches('^%.TH LUNA 1 "%d+%-%d+%-%d+" "lunavisor ', page)
    if has "groff" then
      assert.equal("", run "groff -man -Tutf8 -ww @prefix/share/man/man1/luna.1 2>&1 >/dev/null")
    end
    assert.equal("", run "bash -n @prefix/share/bash-completion/completions/luna")
    for name, text in pairs { ["share/bash-completion/completions/luna"] = "complete -F _luna ",
      ["share/zsh/site-functions/_luna"] = "#compdef luna",
      ["share/fish/vendor_completions.d/luna.fish"] = "complete -c luna" } do
      at.name = name
      helper.contains(text, run "cat @prefix/@name")
    end
    assert.equal("boot", run [[bash -c '. @prefix/share/bash-completion/completions/luna
      COMP_WORDS=(luna bo) COMP_CWORD=1; _luna; echo $COMPREPLY']])
  end)

  it("says how to use a directory that Lua does not search", function()
    local said = run "cat @tmp/said"
    for _, setting in ipairs {
      'set LUA_PATH to "@prefix/share/lua/5.4/?.lua;',
      'set LUA_CPATH to "@prefix/lib/lua/5.4/?.so;',
      'set LUA_PATH to "@prefix/share/lua/5.1/?.lua;',
    } do
      assert.truthy(said:find(fill(setting, at), 1, true), said)
    end
  end)

  it("compiles a C program with the installed pkg-config file", function()
    local version = run "PKG_CONFIG_PATH=@prefix/lib/pkgconfig pkg-config --modversion lunavisor"
    assert.equal(version, run [[cd @tmp && export PKG_CONFIG_PATH=@prefix/lib/pkgconfig
      printf '%s\n' '#include <lunavisor.h>' '#include <stdio.h>' \
        'int main(void) { puts(luna_version()); return 0; }' >program.c
      gcc -o program program.c $(pkg-config --cflags --libs lunavisor)
      LD_LIBRARY_PATH=@prefix/lib ./program]])
  end)

  for _, compiler in ipairs { "gcc", "clang" } do
    it("compiles programs for the Hypervisor framework with " .. compiler, function()
      if not has(compiler) then
        pending(compiler .. " is not installed")
      end
      at.cc = compiler .. " -Wall -Wextra -Wpedantic -Werror"
      at.stage = at.tmp .. "/hvf-" .. compiler
      at.names = table.concat(names, " ")
      run "CFLAGS=-O0 make -s -C @tree install-files DESTDIR=@stage PREFIX=/opt/luna"
      run [[cd @stage && inc=@stage/opt/luna/include lib=@stage/opt/luna/lib
        for header in $(cd $inc && ls Hypervisor/*.h); do
          echo "#include <$header>" | @cc -x c -std=c11 -I$inc -fsyntax-only -
          echo "#include <$header>" | @cc -x c++ -I$inc -fsyntax-only -
        done
        for name in @names; do
          @cc -o $name @tree/examples/hvf/$name.c -I$inc -L$lib -pthread -lHypervisor
          @cc -o $name.static @tree/examples/hvf/$name.c -I$inc \
            $lib/libHypervisor.a $lib/liblunavisor.a \
            $(sed -n 's/^Libs.private: //p' $lib/pkgconfig/lunavisor.pc)
        done]]
      local text = run "readelf -d @stage/hello"
      assert.truthy(text:find "libHypervisor%.so%.0")
    end)
  end

  helper.kvm("a program for the Hypervisor framework", function()
    for _, name in ipairs(names) do
      it("is built as its comment says, and does what the page shows: " .. name, function()
        local source = support.read("examples/hvf/" .. name .. ".c")
        at.command = assert(source:match "\n %*   (cc [^\n]-) %*/", "no command line in it")
        at.name = name
        run [[mkdir -p @tmp/@name && cd @tmp/@name && cp @tree/examples/hvf/@name.c .
          export PKG_CONFIG_PATH=@prefix/lib/pkgconfig
          @command]]
        local output = run "cd @tmp/@name && LD_LIBRARY_PATH=@prefix/lib timeout 60 ./a.out"
        assert.equal(pictures["hvf/" .. name .. ".c"], output)
      end)
    end
  end)

  it("loads under Lua 5.4 from there", function()
    assert.equal("table", run [[cd / && LUA_CPATH='@prefix/lib/lua/5.4/?.so' \
      LUA_PATH='@prefix/share/lua/5.4/?.lua;@prefix/share/lua/5.4/?/init.lua' \
      lua5.4 -e 'print(type(require "lunavisor.hv"))']])
  end)

  it("loads under LuaJIT from there", function()
    assert.equal("table", run [[cd / && \
      LUA_PATH='@prefix/share/lua/5.1/?.lua;@prefix/share/lua/5.1/?/init.lua;;' \
      luajit -e 'print(type(require "lunavisor.hv"))']])
  end)

  for _, engine in ipairs { "lua5.4", "luajit" } do
    it("has a program that finds its library from there, under " .. engine, function()
      at.engine, at.code = engine, engine == "luajit" and "5.1/lunavisor/program/modules.luajit"
        or "5.4/lunavisor/program/modules.lua54"
      assert.equal("lunavisor\tlua\tcompiled", run [[cd @tmp && echo 'print(
        require("lunavisor")._VERSION:match "%a+", arg[0]:match "(%a+)$",
        (package.searchers or package.loaders)[2]("lunavisor") and "compiled")' >installed.lua
        ln -sf @prefix/bin/luna link && LUNA_LUA=@engine ./link installed.lua]])
      -- Of its own modules none is compared with its source, of others each.
      assert.equal("0\n1", run [[cd @prefix/share/lua &&
        for name in lunavisor argparse; do
          grep -aPc "^$name\\S*\t/\\S+\t\\d+\t\\d+\t" @code || true
        done]])
    end)
  end

  helper.kvm("a newcomer in an empty directory", function()
    for _, engine in ipairs { "lua5.4", "luajit" } do
      it("has a device on a guest in three commands, under " .. engine, function()
        at.first = must "mktemp -d"
        at.engine = engine
        helper.keep { close = function() os.execute("rm -r " .. at.first) end }
        local function luna(words)
          at.words = words
          return run "cd @first && LUNA_LUA=@engine timeout 60 @prefix/bin/luna @words"
        end
        luna "device new shout"
        helper.contains(" / 0 failures / 0 errors / 0 pending", luna "test")
        assert.equal("HELLO FROM A GUEST", luna "boot shout.asm --device shout.lua")
        helper.contains('"workspace.library": ["' .. at.prefix .. "/share/lua/5.",
          luna "init && cat .luarc.json")
      end)
    end
  end)

  -- Such a build, and what a script prints with it.
  local function without_zydis(script)
    at.script = at.tmp .. "/script.lua"
    local file = assert(io.open(at.script, "w"))
    file:write(script)
    file:close()
    return run [[cd @tree && CFLAGS=-O0 make -s ZYDIS= DWARF= BUILD=@tmp/bare
      eval "$(make -s ZYDIS= DWARF= BUILD=@tmp/bare env)" && lua5.4 @script]]
  end

  it("says what a build without Zydis has not", function()
    local neither = "this build of the library has neither a disassembler nor a software CPU: it "
      .. "was made without Zydis (Debian: libzydis-dev)"
    local output = without_zydis [[
      local luna = require "lunavisor"
      print(luna.disasm "\x90")
      print(select(2, luna.vm { accel = "soft" }))
    ]]
    local disasm, soft = output:match "^(.-)\n(.*)$"
    assert.equal("nil\tcannot disassemble: " .. neither .. "\tunsupported", disasm)
    assert.matches("without Zydis %(Debian: libzydis%-dev%)", soft)
  end)

  helper.kvm("a build without Zydis", function()
    it("has no source lines without libdw", function()
      local path = compiled.c(compiled.directory(), {})
      assert.equal("_start\nnil\tcannot read source lines: this build of the library was made "
        .. "without libdw (Debian: libdw-dev)\tunsupported", without_zydis(([[
        local luna = require "lunavisor"
        local vm = luna.vm { accel = "kvm" }
        vm.default:map(luna.buffer "4M", 0)
        local loaded = assert(luna.load(vm, %q))
        print(vm:symbol(loaded.entry.rip))
        print(vm:source_line(loaded.entry.rip))
      ]]):format(path)))
    end)

    it("has bytes in place of texts, and cannot skip", function()
      local output = without_zydis [[
        local luna = require "lunavisor"
        local vm, ram = luna.vm { accel = "kvm" }, luna.buffer "64K"
        vm:map_space(0, ram, 0)
        ram:write(0x1000, "\x0f\x0b\xf4")
        local cpu = vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 }
        print(cpu:run { timeout = 60 })
        print(select(3, cpu:instruction()))
        cpu.rip = 0x1000
        cpu:on("exception", function() return "skip" end)
        print(select(2, pcall(cpu.run, cpu, { timeout = 60 })))
        cpu.rip = 0x1000
        cpu:on("exception", function() cpu.rip = cpu.rip + 2 return "skip" end)
        print(cpu:run { timeout = 60 })
      ]]
      helper.contains("exception (#UD, error code 0x0) at rip 0x1000: bytes 0f 0b f4"
        .. (" 00"):rep(12) .. "\nunsupported\n", output)
      helper.contains('with "skip", and the length of the instruction is not known: cannot '
        .. "disassemble: this build", output)
      helper.contains('set cpu.rip behind it and answer "continue"', output)
      helper.contains("hlt at rip 0x1003", output)
    end)
  end)

  for version, engine in pairs { ["5.4"] = "lua5.4", ["5.1"] = "luajit" } do
    it("makes a rock for Lua " .. version, function()
      if not has "luarocks" then
        pending "luarocks is not installed"
      end
      at.version, at.engine = version, engine
      at.rocks = at.tmp .. "/rocks"
      run [[cd @tree && luarocks --lua-version=@version make --tree=@rocks \
        lunavisor-scm-1.rockspec CFLAGS=-O0]]
      at.lmod = fill("@rocks/share/lua/@version", at)
      assert.equal("table", run [[cd / && LUA_CPATH='@rocks/lib/lua/@version/?.so' \
        LUA_PATH='@lmod/?.lua;@lmod/?/init.lua;;' \
        @engine -e 'print(type(require "lunavisor.hv"))']])
    end)
  end
end)

describe("scripts/setup", function()
  local directory

  before_each(function()
    directory = must "mktemp -d"
  end)

  after_each(function()
    must("rm -rf " .. directory)
  end)

  local function write(name, text)
    support.write(directory .. "/" .. name, text)
  end

  it("refuses a system without apt-get and names the packages", function()
    write("release", 'ID=alpine\nNAME="Alpine Linux"\n')
    local output, ok = sh("PATH=/nonexistent LUNA_OS_RELEASE=" .. directory
      .. "/release scripts/setup")
    assert.falsy(ok)
    assert.matches("^Missing %(names of Debian%): gcc make ", output)
    for _, manager in ipairs { "apt%-get install", "dnf install", "pacman %-S", "apk add" } do
      assert.matches(manager, output)
    end
    assert.falsy(output:find "not found")
  end)

  it("has nothing to do where everything is installed", function()
    assert.equal("", must "LUNA_OS_RELEASE=/dev/null scripts/setup")
  end)

  -- Setup with another apt-get, on a system where Lua 5.4 is not to be found.
  local function install(apt_get, what, setting)
    write("release", "ID=debian\n")
    write("apt-get", "#!/bin/sh\necho apt-get says $*\n" .. apt_get)
    write("sudo", '#!/bin/sh\ncase "$2" in true) exit ;; esac\nshift\nexec "$@"\n')
    must("chmod +x " .. directory .. "/apt-get " .. directory .. "/sudo")
    return sh(("PATH=%s:$PATH LUNA_OS_RELEASE=%s/release LUA=%s/lua5.4 %s scripts/setup %s")
      :format(directory, directory, directory, setting or "", what or ""))
  end

  it("says what it installs in a line", function()
    local output, ok = install(("test -e %s/lua5.4 || ln -s $(command -v lua5.4) %s")
      :format(directory, directory))
    assert.equal("Installing with apt-get: lua5.4 lua-argparse lua-luv lua-readline "
      .. "lua-expat", output)
    assert.is_true(ok)
  end)

  it("shows what apt-get said when that failed", function()
    local output, ok = install 'case "$*" in *lua-expat) exit 100 ;; esac'
    assert.falsy(ok)
    assert.matches("\napt%-get says [^\n]* install [^\n]*lua5%.4 lua%-argparse lua%-luv "
      .. "lua%-readline lua%-expat\n", output)
    assert.falsy(output:find " update\n")
    assert.matches("apt%-get install ended with status 100: its output is above%.$", output)
  end)

  it("knows what else it is asked for", function()
    local output, ok = sh "scripts/setup client"
    assert.falsy(ok)
    assert.equal("setup: usage: setup [--list | clients]", output)
    output, ok = sh(("LUNA_CLIENTS=%s LUNA_OS_RELEASE=/dev/null scripts/setup clients")
      :format(directory))
    assert.falsy(ok)
    assert.matches("linux%-image%-cloud%-amd64 memtest86%+%.\n", output)
  end)

  it("unpacks what it does not install for clients", function()
    for name, text in pairs { ["apt-cache"] = "echo '  Depends: linux-image-6-cloud-amd64'",
      dpkg = "mkdir -p boot; touch boot/vmlinuz-6-cloud-amd64 boot/memtest86+x64.bin",
      ldd = "exit 1" } do
      write(name, "#!/bin/sh\n" .. text .. "\n")
    end
    for name in ("gdb lldb busybox chromium qemu-system-x86_64 musl-gcc zsh fish"):gmatch "%S+" do
      write(name, "#!/bin/sh\n")
    end
    must(("chmod +x %s/*"):format(directory))
    local output = install([[case "$*" in
      *download*) touch "$(echo "$*" | sed 's/.* //')_6.deb" ;;
      esac]], "clients", ("LUNA_CLIENTS=%s/kept:/other"):format(directory))
    assert.matches(("Unpacking linux%%-image%%-cloud%%-amd64 into %s/kept\n"):format(directory)
      .. "Unpacking memtest86%+ into ", output)
    assert.equal("boot", must(("ls %s/kept"):format(directory)))
  end)

  it("does not take apt-get's word for it", function()
    local output, ok = install "exit 0"
    assert.falsy(ok)
    assert.matches("Installed, and yet not found: lua5%.4 lua%-argparse lua%-luv lua%-readline "
      .. "lua%-expat$", output)
  end)
end)
