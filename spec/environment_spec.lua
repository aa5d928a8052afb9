-- SPDX-License-Identifier: MIT
-- The program luna where its environment is not the usual one: it does the same there, or says what
-- is in the way. scripts/test gives all other specs a usual one.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local program = require "spec.support.program"
local sweep = require "spec.support.sweep"

local contains = helper.contains

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function has(command)
  return select(2, helper.sh("command -v " .. command)) == 0
end

-- Works with a temporary file, a guest, and numbers in the locale of the environment.
local GUEST = [[
local luna = require "lunavisor"
os.setlocale ""
local vm, ram = assert(luna.vm()), assert(luna.buffer "64K")
vm.default:map(ram, 0)
ram:write(0x1000, assert(luna.asm("mov al, 7\n inc al\n hlt", { org = 0x1000 })))
local cpu = assert(vm:vcpu { rip = 0x1000 })
local exit = assert(cpu:run { timeout = 60 })
return { exit = exit.kind, rax = luna.hex(cpu.rax), half = 0.5 }
]]

-- What is done everywhere. Its exit status is kept: commands end with others, too.
local WORK = [[
for LUNA_LUA in lua5.4 luajit; do
  export LUNA_LUA
  "$luna" run --json --set half=2.5 guest.lua 2>&1 | sed 's/, "seconds".*//'
  "$luna" boot kernel.elf --timeout 120 2>&1
  "$luna" boot status.elf --timeout 120 2>&1; echo "status $?"
  "$luna" run --linux --timeout 120 args -- a 2>&1; echo "status $?"
  "$luna" test one_spec.lua 2>&1 | grep -o '1 success.*pending'
done
"$luna" device new gauge 2>&1 && "$luna" init | sed 's/^.*[/]//' && rm gauge* .busted .luarc.json
]]

local ONCE = [[
{"arguments": {"half": 2.5}, "results": {"exit": "hlt", "half": 0.5, "rax": "0x8"}
hello
status 42
status 3
1 success / 0 failures / 0 errors / 0 pending
]]
local DONE = ONCE .. ONCE .. "gauge.lua\ngauge_spec.lua\ngauge.asm\n.luarc.json\n.busted"

local SWEEP = '; "$luna" sweep unit.lua --set size=0.5,2 --output out >&2 && cat out/results.csv'
  .. " | cut -d, -f1-3,5; rm -rf out"
local SWEPT = "\nunit,size,status,size_result\n1,0.5,0,0.5\n2,2,0,2"

helper.kvm("luna in an environment that is not the usual one:", function()
  local directory, checkout

  setup(function()
    directory = program.directory()
    checkout = helper.sh "pwd"
    files.write(directory .. "/guest.lua", GUEST)
    files.write(directory .. "/one_spec.lua", 'it("is", function() assert.equal(1, 1) end)')
    files.write(directory .. "/work.sh", WORK .. (sweep.parallel and SWEEP:sub(3) or ""))
  end)
  teardown(function() helper.sh("rm -rf " .. quote(directory)) end)

  -- The work, behind words of the shell; `place`: where it is done.
  local function works(before, place)
    local said = helper.sh(("cd %s && export luna=%s && %s sh work.sh 2>said; cat said >&2"):format(
      quote(place or directory), quote(checkout .. "/scripts/luna"), before))
    local wanted = DONE .. (sweep.parallel and SWEPT or "")
    if said:sub(1, #wanted) ~= wanted then assert.equal(wanted, said) end
  end

  it("no variables at all", function()
    works 'env -i PATH="$PATH" luna="$luna"'
  end)

  it("numbers with a comma", function()
    local locales = helper.sh "mktemp -d"
    helper.keep { close = function() helper.sh("rm -rf " .. locales) end }
    local said, status = helper.sh(("localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8"):format(locales))
    if status ~= 0 then pending("there is no German locale: " .. said) end
    works(("LOCPATH=%s LC_ALL=de_DE.UTF-8"):format(locales))
  end)

  it("variables of programs that it runs or that run it", function()
    works((([[env LUA_PATH='/nowhere/?.lua;;' LUA_CPATH='/nowhere/?.so;;' CDPATH=/tmp:/usr
      LUA_PATH_5_4='/nowhere/?.lua;;' BASH_ENV=/nowhere/rc ENV=/nowhere/rc SHELL=/no/sh
      POSIXLY_CORRECT=1 NO_COLOR=1 CLICOLOR_FORCE=1
      MAKEFLAGS=-k TERM=nonsense TZ=America/St_Johns PARALLEL=-k]])
      :gsub("\n", " ")))
  end)

  it("a home that is not there", function()
    works "env HOME=/proc/nowhere XDG_STATE_HOME=/proc/nowhere XDG_CACHE_HOME=/proc/nowhere"
  end)

  it("temporary files in a place with a space and a long name", function()
    local path = directory .. "/two words/" .. ("x"):rep(200)
    helper.sh("mkdir -p " .. quote(path))
    works("env TMPDIR=" .. quote(path))
  end)

  it("a directory whose name is full of what shells and Lua look at", function()
    local place = directory .. "/a b'c%d$e;f?g*[h] [[i]] ü\"&!#"
    helper.sh(("mkdir %s && cd %s && cp * %s"):format(quote(place), directory, quote(place)))
    works("env", place)
  end)

  for name, before in pairs {
    ["files that nobody else may read"] = "umask 077;",
    ["files that all may write"] = "umask 0;",
    ["no standard input"] = "exec <&-;",
    ["few files"] = "ulimit -n 64;",
    ["a small stack"] = "ulimit -s 512;",
    ["no memory to lock"] = "ulimit -l 0;",
    ["signals that are ignored"] = "trap '' HUP INT QUIT PIPE CHLD;",
  } do
    it(name, function() works(before) end)
  end

  it("no terminal to belong to", function()
    if not has "setsid" then pending "there is no setsid" end
    works "setsid -w"
  end)

  it("a user who may not open /dev/kvm", function()
    local user = "setpriv --reuid=65534 --regid=65534 --clear-groups "
    if select(2, helper.sh(("%s test -r %s/build/flags -a ! -w /dev/kvm"):format(user, checkout)))
      ~= 0 then
      pending "there is no such user, or this is one already, or none may read the checkout"
    end
    helper.sh("chmod -R a+rwX " .. directory)
    works("env -u LUNA_ACCEL HOME=/proc/nowhere " .. user)
  end)
end)

describe("luna whose streams are closed", function()
  local directory
  setup(function() directory = program.directory() end)
  teardown(function() helper.sh("rm -rf " .. directory) end)

  local function ends(...) return program.ends(directory, ...) end

  local LOST = "luna: not all that was printed could be written"

  it("says that what it printed is lost, and does not end with 0", function()
    for _, words in ipairs { "hello.lua", "run --json hello.lua", "--version", "--help",
      "completion zsh", "man", "map", "device coverage", "probe --json" } do
      ends(1, LOST, words .. " >/dev/full")
      ends(1, LOST, words .. " >&-")
      ends(1, "", words .. " >&- 2>&-")
    end
    local leaves = helper.file "print 'text' os.exit(...)"
    ends(1, LOST, ("run %s >/dev/full"):format(leaves))
    leaves = helper.file "print 'text' io.stdout:flush() os.exit(7)"
    ends(7, LOST, ("run %s >/dev/full"):format(leaves))
    leaves = helper.file "io.stdout:close() os.exit(true)"
    assert.equal("", ends(0, "", "run " .. leaves))
    ends(126, "luna: --output: /dev/full: ", "map --output /dev/full")
  end)

  it("opens no file in their place", function()
    local script = helper.file [[
      local file = assert(io.open("kept", "r+"))
      print "text"
      io.stdout:flush()
      io.stderr:write "more text"
      assert(file:read "*a" == "kept as it was" and io.read() == nil)]]
    for _, streams in ipairs { ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-" } do
      program.luna(directory, ("run %s %s"):format(script, streams),
        "printf '%s' 'kept as it was' >kept;")
      assert.equal("kept as it was", (helper.sh(("cat %s/kept"):format(directory))), streams)
    end
  end)
end)

helper.kvm("a guest whose console is closed", function()
  it("reads nothing, and ends as it would", function()
    local directory = program.directory()
    helper.keep { close = function() helper.sh("rm -rf " .. directory) end }
    assert.equal("", program.ends(directory, 0, "", "run --linux --timeout 120 cat <&-"))
    program.ends(directory, 124, "", "boot echo.elf --timeout 0.5 <&-")
    program.ends(directory, 42, "", "boot status.elf --timeout 120 >&-")
    program.ends(directory, 1, "could be written", "boot kernel.elf --timeout 120 >/dev/full")
  end)
end)

describe("a checkout", function()
  it("is used in a shell that has paths for Lua 5.4 alone", function()
    assert.equal("table", (helper.sh [[export LUA_PATH_5_4='/nowhere/?.lua;;' LUA_CPATH_5_4=';;'
      unset LUA_PATH LUA_CPATH MAKEFLAGS; eval "$(make -s env)"
      lua5.4 -e 'print(type(require "lunavisor"))']]))
    contains("/nowhere/?.lua;;", (helper.sh [[export LUA_PATH='/nowhere/?.lua;;'
      unset MAKEFLAGS; eval "$(make -s env)"; echo "$LUA_PATH"]]))
  end)

  it("is refused in a directory, and for names, with which nothing can be built", function()
    local directory = helper.sh "mktemp -d"
    helper.keep { close = function() helper.sh("rm -rf " .. directory) end }
    for name in ("' \" ` $ \\ ; ? : *"):gmatch "%S" do
      local said, status = helper.sh(("cp Makefile %s/ && cd %s && mkdir -p %s && cp Makefile %s "
        .. "&& cd %s && unset MAKEFLAGS && make"):format(directory, directory, quote("a" .. name),
        quote("a" .. name), quote("a" .. name)))
      assert.equal(2, status)
      contains('lunavisor cannot be built in "', said)
      contains(("for the %s in this name: move the checkout"):format(name), said)
    end
    for _, word in ipairs { "PREFIX='/a b'", "DESTDIR='/a;b'", "BUILD='a b'", "BINDIR='/\"'" } do
      local said, status = helper.sh("unset MAKEFLAGS; make install " .. word)
      assert.equal(2, status)
      contains('": a path without spaces and quotes expected', said)
    end
  end)
end)
