-- SPDX-License-Identifier: MIT
-- The program luna: its subcommands, the statuses that it ends with and what it says, its help and
-- the examples in it.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local program = require "spec.support.program"
local contains = helper.contains

local directory
local has_bios = io.open "/usr/share/seabios/bios.bin"
if has_bios then has_bios:close() end

local function run(words, before)
  return program.luna(directory, words, before)
end

local function ends(...) return program.ends(directory, ...) end

describe("the program luna", function()
  setup(function() directory = program.directory() end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  it("has a help that fits 80 columns", function()
    for command in (" run boot report repl gdb map sweep probe"):gmatch "[^ ]*" do
      local words = command .. " --help"
      local text, status = run(words)
      assert.equal(0, status)
      contains("Usage: luna", text)
      for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    end
    ends(0, luna._VERSION, "--version")
  end)

  it("says what it does not know, and ends with 126", function()
    ends(126, "luna: unknown command 'bot'", "bot")
    ends(126, "luna: unknown option '--timout'\nDid you mean '--timeout'?", "boot --timout 5")
    ends(126, "luna: missing argument 'image'", "boot")
    ends(126, "luna: missing argument 'name'\nluna device --help tells more", "device new")
    ends(126, "luna: a command is required", "")
    ends(126, "--timeout: seconds above 0 expected", "boot kernel.elf --timeout 0")
    ends(126, "luna: --timeout: seconds above 0 expected, got 1s", "boot kernel.elf --timeout 1s")
    ends(126, "luna: --cpus: a whole number from 1 expected, got two", "boot kernel.elf -c two")
    ends(126, "luna: --gdb: a port from 0 to 65535 expected, got x", "run --gdb x hello.lua")
  end)

  it("says where nothing is built, and where no Lua fits", function()
    ends(126, "luna: nothing is built in /nowhere: say make in", "hello.lua",
      "LUNAVISOR_LIBRARY=/nowhere/lib.so")
    ends(126, "luna: no Lua that fits: luna-5.9", "hello.lua", "LUNA_LUA=luna-5.9")
  end)

  it("runs a script with its arguments", function()
    assert.equal("lunavisor\ta\t--b", (run "hello.lua a --b"))
    assert.equal("lunavisor\t--\t-x", (run "run hello.lua -- -x"))
    local script = helper.file "print(arg[0]:match '[^/]*$', #arg, arg[1]) os.exit(3)"
    local output, status = run(("run %s --help"):format(script))
    assert.equal(script:match "[^/]*$" .. "\t1\t--help", output)
    assert.equal(3, status)
    ends(0, "from the standard input", "run -", "echo 'print \"from the standard input\"' |")
  end)

  it("says where a script has failed", function()
    local script = helper.file "local function f() error 'no good' end\nf()"
    local output = ends(1, script .. ":1: no good", "run " .. script)
    contains("stack traceback", output)
    contains(script .. ":2:", output)
    assert.is_nil(output:find("xpcall", 1, true) or output:find("program/run.lua", 1, true))
    ends(126, "luna: cannot open nope.lua", "nope.lua")
    local damaged = helper.file "x x"
    ends(126, "luna: " .. damaged .. ":1:", "run " .. damaged)
  end)

  it("gives a script arguments by name, and prints what it returns", function()
    local script = helper.file [[
      local given = require("lunavisor").arguments
      local first = math.random(2 ^ 30)
      math.randomseed(7)
      return { same = first == math.random(2 ^ 30), size = given.size * 2, mode = given.mode,
        big = require("lunavisor").u64(1, 1), list = { 1, 'a"b' }, none = 1 / 0 }]]
    local line = run("run --seed 7 --set size=4 --set mode=real=1 --json " .. script .. " -x")
    contains('{"arguments": {"mode": "real=1", "seed": 7, "size": 4}, "results": {"big": '
      .. '4294967297, "list": [1, "a\\"b"], "mode": "real=1", "none": null, "same": true, '
      .. '"size": 8}, "seconds": ', line)
    contains(', "status": 0}', line)
    assert.equal(1, select(2, line:gsub("[^\n]+", "")))
    local odd = helper.file "return { [1] = 7, [5] = { [3] = 1 }, a = { 2, [7] = 3 }, [true] = 4 }"
    contains('"results": {"1": 7, "5": {"3": 1}, "a": {"1": 2, "7": 3}, "true": 4}',
      (run("run --json " .. odd)))
    local failing = helper.file "error 'no good'"
    contains('no good", "seconds": ', (ends(1, '"error": "', "run --json " .. failing)))
    local number = helper.file "return 5"
    ends(0, "luna: the script has returned a number: a table expected, whose fields are the "
      .. "results", "run --json " .. number)
    ends(126, "luna: --set: name=value expected, got 7", "run --set 7 hello.lua")
    ends(126, "luna: --seed: a whole number expected, got 0.5", "run --seed 0.5 hello.lua")
    ends(126, "luna: --seed: a whole number expected, got x", "run --seed x hello.lua")
  end)

  it("tells what the host can do", function()
    local output, status = run "probe"
    assert.equal(tostring(luna.probe()), output)
    assert.equal(luna.probe().available and 0 or 126, status)
    ends(126, '"code": "no_kvm"', "probe --json", "LUNA_ACCEL=kvm LUNA_KVM_DEVICE=/no/kvm")
    local accel = run "probe --json":match '"accel": "(%l+)"'
    assert.equal(luna.probe().accel, accel)
  end)
end)

helper.kvm("luna boot", function()
  setup(function() directory = program.directory() end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  it("ends with the guest's status", function()
    assert.equal("hello", ends(0, "hello", "boot kernel.elf --timeout 120"))
    ends(42, "", "boot status.elf --timeout 120")
    ends(42, "", "boot status.elf --machine microvm --timeout 120")
    ends(0, "", "boot off.elf --timeout 120")
    ends(17, "", "boot second.elf --timeout 120")
    ends(0, "", "boot halt.elf --timeout 120")
    ends(0, "", "boot halt.elf --machine bare --timeout 120")
    ends(0, "", "boot halt.elf --cpus 2 --timeout 120")
  end)

  it("ends with 124 when its time is up", function()
    local output = ends(124, "in a loop\nluna: the guest has not ended within 1 s: timeout at "
      .. "rip 0x1000", "boot loop.elf --timeout 1")
    contains("\n  the device at port 0x3f8 (com1): pio (write of 1 byte at port 0x3f8,", output)
  end)

  it("has a prompt before a script's guest runs", function()
    local output = run("repl guest.lua 7", "printf '%s\\n' 'cpu.rip' s leave |")
    contains("0x1000 (4096)\ndebug (single step) at rip 0x1002", output)
    contains("changed: ", output)
    contains("7\thlt", output)
    assert.equal("0x1000 (4096)", (run("repl guest.lua", "printf '%s\\n' cpu.rip quit |")))
    assert.equal("2\ntrue", (run("repl", "printf '%s\\n' 1+1 'luna.vm ~= nil' |")))
    output = run("repl stands.lua", "printf '%s\\n' vm c cpu.rax |")
    contains("vm (1 vcpus", output)
    contains("hlt at rip 0x1005", output)
    contains("\n8", output)
    ends(126, "cannot listen", "repl --socket /no/where/x guest.lua")
    ends(126, "cannot open nope.lua", "repl nope.lua")
  end)

  it("gets Ctrl-C back to the prompt", function()
    local output = run([[repl loop.lua <pipe >out.txt 2>&1 & pid=$!
      trap '' PIPE
      exec 3>pipe
      interrupt() {
        printf 'print("%s on")\n%s\n' "$1" "$2" >&3
        until grep -q "^$1 on" out.txt; do sleep 0.05; kill -0 $pid || return; done
        sleep 0.5; kill -INT $pid
        until tail -n +$(grep -n "^$1 on" out.txt | cut -d: -f1) out.txt | grep -q interrupted; do
          sleep 0.05; kill -0 $pid || return
        done
      }
      interrupt 1 c; interrupt 2 c; interrupt 3 'while true do end'
      printf 'print(5 + 5)\nquit\n' >&3; wait $pid; echo "status $?"; cat out.txt]],
      "rm -f pipe; mkfifo pipe;")
    contains("status 0", output)
    assert.equal(2, select(2, output:gsub("interrupted at rip", "")))
    contains("error: interrupted\n10", output)
  end)

  -- A script that takes SECONDS to end, so that a second signal comes while it does.
  local SLOW = [[
    local luna, seconds = require "lunavisor", tonumber((...))
    local function slow()
      local finish = luna.clock() + seconds
      while luna.clock() < finish do end
      print "in good order"
    end
    local proxy
    if newproxy then
      proxy = newproxy(true)
      getmetatable(proxy).__gc = slow
      jit.off() -- compiled code looks for no Ctrl-C
    else
      proxy = setmetatable({}, { __gc = slow })
    end
    print "ready"
    io.stdout:flush()
    while proxy do end]]

  -- What a luna says that gets SIGINTs, by the shell, once it is ready, and takes so long to end.
  local function interrupted(kills, seconds)
    return (run(([[run slow.lua %s >out.txt 2>&1 & pid=$!
      until grep -q ready out.txt || ! kill -0 $pid; do sleep 0.02; done
      %s
      wait $pid; echo "status $?"; cat out.txt]]):format(seconds, kills),
      ("rm -f out.txt; cat >slow.lua <<'END'\n%s\nEND\n"):format(SLOW)))
  end

  it("ends in good order at Ctrl-C, also where that comes twice", function()
    for _, kills in ipairs { "kill -INT $pid", "kill -INT $pid; sleep 0.1; kill -INT $pid" } do
      local output = interrupted(kills, 0.6)
      contains("status 130", output)
      contains("interrupted!", output)
      contains("in good order", output)
    end
    local output = interrupted("while kill -INT $pid 2>&-; do sleep 0.1; done", 60)
    contains("status 130", output)
    assert.falsy(output:find "in good order")
  end)

  it("ends in good order where timeout sends it SIGINT", function()
    local output = run([[run slow.lua 0.6 >out.txt 2>&1 & pid=$!
      until grep -q ready out.txt || ! kill -0 $pid; do sleep 0.02; done; kill -ALRM $pid # its end
      wait $pid; echo "status $?"; cat out.txt]], ("rm -f out.txt; cat >slow.lua <<'END'\n%s\nEND\n"
      .. "luna=\"timeout --preserve-status -s INT 60 $luna\";"):format(SLOW))
    contains("status 130", output)
    contains("in good order", output)
  end)

  it("edits lines, completes and keeps a history at a terminal", function()
    local lua = "env -u LUA_PATH -u LUA_CPATH " .. helper.engine
    if select(2, helper.sh("command -v script")) ~= 0
      or select(2, helper.sh(lua .. " -e 'require [[readline]]'")) ~= 0 then
      pending "lua-readline or util-linux's script is not installed"
    end
    local output = run([[repl guest.lua]], [[export HOME=$PWD TERM=dumb; unset XDG_STATE_HOME
      : >seen
      wait_for() { # TEXT TIMES
        until [ "$(grep -o "$1" seen | wc -l)" -ge $2 ]; do sleep 0.05; done
      }
      (wait_for 'luna> ' 1; sleep 0.3; printf 'cpu.rfl\t\n'; wait_for 'luna> ' 2; sleep 0.3
      printf '\003'; sleep 0.2; printf '40 + 2\n'; wait_for '(42)' 1; printf 'quit\n'; sleep 0.2) |
        script -qec "$luna repl guest.lua" /dev/null | tee seen
      cat .luna_history; true ]])
    contains("luna> cpu.rflags \r\n2\r\n", output)
    contains("0x2a (42)", output)
    contains("cpu.rflags", output:match "quit.*$")
  end)

  it("lets gdb have a script's guest on a pipe", function()
    if select(2, helper.sh "command -v gdb") ~= 0 then pending "gdb is not installed" end
    -- gdb itself runs without the sanitizer that its child has to load.
    local first = helper.sanitized and "env LD_PRELOAD=$LD_PRELOAD " or ""
    local function gdb(script, commands)
      return run("--version", ([[%s -nx -batch -ex "target remote | %s$luna gdb %s" %s; ]]):format(
        helper.program "timeout 240 gdb", first, script, commands))
    end
    contains("\n0x1002\n", gdb("guest.lua 7",
      [[-ex stepi -ex "monitor luna.hex(cpu.rip)" -ex kill]]))
    contains("killed]", gdb("guest.lua", "-ex kill"))
    gdb("note.lua", "-ex detach")
    contains("hlt", (run("--version", [[
      for i in $(seq 300); do test -s note || sleep 0.2; done; cat note;]])))
    ends(126, "luna: hello.lua has made no VM with a vCPU", "gdb hello.lua")
    contains("i8086", run("gdb --bits 16 guest.lua",
      [[printf '%s' '$qXfer:features:read:target.xml:0,200#dd$k#6b' |]]))
  end)

  it("lets gdb have the guest", function()
    if select(2, helper.sh "command -v gdb") ~= 0 then pending "gdb is not installed" end
    ends(126, "luna: --gdb: a port from 0 to 65535 expected", "boot triple.elf --gdb 70000")
    local said = helper.file ""
    local output = run(([[boot triple.elf --gdb 0 2>%s & pid=$!
      until port=$(sed -n "s/.*target remote :\\([0-9]*\\)$/\\1/p" %s) && [ "$port" ]; do
        kill -0 $pid || break; sleep 0.05
      done
      %s -nx -batch -ex "target remote :$port" -ex stepi -ex "monitor cpu.id" -ex kill
      wait $pid; echo "status $?"]]):format(said, said, helper.program "timeout 240 gdb"))
    contains("\n0\n", output)
    contains("killed]", output)
    contains("status 0", output)
  end)

  it("ends with 125 after a triple fault and a panic", function()
    local output = ends(125, "luna: the guest cannot go on: shutdown (triple fault) at rip",
      "boot triple.elf --timeout 120")
    contains("ud2\n", output)
    contains("Likely: no exception can be taken with the IDT at 0x0", output)
    -- KVM itself may give up where the frame goes to no memory.
    ends(125, "luna: the guest cannot go on: ", "boot wild.elf --timeout 120")
    ends(125, "no init\nluna: the guest's kernel has panicked", "boot panic.elf --timeout 120")
  end)

  it("ends with 126 where it cannot start", function()
    ends(126, "luna: junk is none of the formats linux,", "boot junk")
    ends(126, "luna: the image cannot be opened: nope: No such file", "boot nope")
    ends(126, "luna: /dev/zero: it cannot be read: it has no end in the first 256 MiB",
      "boot /dev/zero")
    ends(126, "luna: memory: a number of bytes or a size such as", "boot kernel.elf -m 12x")
    ends(126, "luna: --cpus: a whole number from 1 expected, got 0", "boot kernel.elf -c 0")
    ends(126, "luna: --disk: nope: No such file", "boot kernel.elf --disk nope")
    ends(126, "luna: --disk: .: Is a directory", "boot kernel.elf --disk .")
    ends(126, "luna: --disk: none is empty", "boot kernel.elf --disk none", ": >none;")
    ends(126, "luna: the image cannot be opened: .: Is a directory", "boot .")
    ends(126, "luna: memory: a multiple of 4096 bytes such as '128M' expected, got 512",
      "boot kernel.elf -m 512")
    ends(126, "the option initrd is not for this format", "boot kernel.elf --initrd initrd.img")
    ends(126, "--console: /no/where: No such file", "boot kernel.elf --console /no/where")
    ends(126, "--disk needs --machine pc", "boot kernel.elf --disk x --machine bare")
    ends(126, "a disk image needs --machine pc", "boot disk.img --machine microvm")
    ends(126, "--floppy needs --machine pc", "boot --floppy x --machine bare")
    ends(126, "luna: --floppy: nope: No such file", "boot kernel.elf --floppy nope")
    ends(126, "--format: one of linux,", "boot junk --format nonsense")
    ends(126, "/no/kvm", "boot kernel.elf --accel kvm", "LUNA_KVM_DEVICE=/no/kvm")
  end)

  it("says before the guest begins what cannot be done later", function()
    for words, text in pairs {
      ["boot kernel.elf --screenshot /no/where"] = "--screenshot: /no/where: No such file",
      ["boot kernel.elf --screenshot x --machine microvm"] = "--screenshot needs --machine pc",
      ["boot kernel.elf --wait-for x --type 'a\195\188b'"] =
        '--type: no key of a US keyboard makes "\195\188"',
      ["boot kernel.elf --type a --machine microvm"] = "--type needs --machine pc",
      ["boot kernel.elf --send a --machine bare"] = "--send needs a serial port: --machine pc or",
      ["boot kernel.elf --wait-for a --machine bare"] = "--wait-for needs a serial port",
      ["boot kernel.elf --bios nope"] = "--bios is for a disk image, and kernel.elf is a kernel",
      ["boot disk.img --initrd nope"] = "--initrd is not for a disk image",
      ["boot disk.img --cmdline x"] = "--cmdline is not for a disk image",
      ["boot disk.img -- x"] = "a command line, behind --, is not for a disk image",
    } do
      local output, status = run(words)
      assert.equal(126, status, words)
      contains("luna: " .. text, output)
      assert.is_nil(output:find("hello", 1, true))
    end
  end)

  it("tells of an error in a device as of one in a script", function()
    local path = helper.file [[
      local device = require "lunavisor.device"
      return { device "broken" { width = 4, registers = { SUM = { at = 0,
        write = function(dev) dev.none = 1 end } } }, pio = 0x300 }]]
    local output = ends(1, "luna: " .. path .. ":3: device broken has no register or field none",
      "boot adder.elf --device " .. path)
    contains("in the device at port 0x300 (broken), rip 0x1000", output)
    assert.is_nil(output:find("boot.lua", 1, true))
  end)

  it("names the software CPU where KVM cannot emulate an instruction", function()
    local words = "boot popcnt.asm --accel kvm --timeout 20"
    local output, status = run(words, "printf 'popcnt eax, ecx\\n out 0xf4, eax' >popcnt.asm;")
    if not output:find("KVM cannot emulate it", 1, true) then
      return pending("this host's KVM runs it, or there is none: " .. output)
    end
    assert.equal(125, status)
    contains("\nluna: the software CPU may have that instruction: --accel soft\n", output)
    ends(0, "", "boot popcnt.asm --accel soft --timeout 20")
  end)

  it("assembles a source, and tells its mistakes", function()
    run("--version", "printf 'call f\\n out 0xf4, eax\\n f: mov eax, 42\\n ret' >guest.asm; "
      .. "echo nonsense ax >bad.asm;")
    ends(42, "", "boot guest.asm --timeout 120")
    ends(126, "luna: bad.asm: luna.asm: nasm refuses the source\nline 1: ", "boot bad.asm")
    ends(126, "luna: the image cannot be opened: none.asm: No such file", "boot none.asm")
    ends(126, "luna: --format is not for assembly source", "boot guest.asm --format elf")
    ends(126, "the option command is not for this format", "boot guest.asm --cmdline x")
  end)

  it("takes what is typed, from the standard input and from --send", function()
    ends(7, "abc", "boot echo.elf --timeout 120", "echo abc |")
    ends(7, "a\tb", "boot echo.elf --timeout 120 --send 'a\\tb\\x0a'")
  end)

  it("waits for texts", function()
    ends(0, "in a loop", "boot loop.elf --timeout 120 --wait-for 'in a' --wait-for loop")
    ends(1, 'the guest ended, and "nothing" has not come',
      "boot kernel.elf --timeout 120 --wait-for nothing")
    ends(42, 'the guest ended, and "nothing" has not come',
      "boot status.elf --timeout 120 --wait-for nothing")
    ends(0, "xy", "boot echo.elf --timeout 120 --send x --wait-for x --send y --wait-for y")
  end)

  it("has its console in a file or on a terminal", function()
    assert.equal("", (run "boot kernel.elf --timeout 120 --console out.txt"))
    assert.equal("hello", (helper.sh("cat " .. directory .. "/out.txt")))
    contains("luna: the console is /dev/pts/", (run "boot kernel.elf --timeout 120 --console pty"))
  end)

  it("says where the time of a run went", function()
    local output = ends(42, "luna: 1 VM on ", "boot status.elf --timeout 120 --stats")
    contains("Time:\n", output)
    contains("% in the guest\n", output)
    contains("% in Lua\n", output)
    assert.matches("Exits by device:\n +1  [ %d.]+ %%  debug_exit", output)
    local script = helper.file [[
      local luna = require "lunavisor"
      luna.vm():close()
      os.exit(9)]]
    contains("luna: 1 VM on ", (ends(9, ", 0 runs, 0.000 s", "run --stats " .. script)))
    assert.matches('"stats": {"accels": {"%l+": 1}, "devices": {}, "exits": 0, "kinds": {}',
      (run("run --stats --json " .. helper.file "require('lunavisor').vm()")))
  end)

  it("writes a trace", function()
    ends(42, "", "boot status.elf --timeout 120 --trace trace.json")
    contains('"name":"debug_exit"', (helper.sh("cat " .. directory .. "/trace.json")))
    ends(126, "luna: --trace: /no/trace: No such file", "boot status.elf --trace /no/trace")
    ends(126, "luna: --trace: /no/trace: No such file", "run --trace /no/trace hello.lua")
  end)

  it("gives Linux its command line, and behind -- what it is to run", function()
    ends(0, "console=ttyS0 panic=-1 reboot=k -- /bin/uname -a",
      "boot vmlinuz --timeout 120 --initrd initrd.img -- /bin/uname -a")
    assert.equal("quiet", (run "boot vmlinuz --timeout 120 --cmdline quiet"))
    ends(0, 'quiet -- sh -c "exit 5"', "boot vmlinuz --cmdline quiet -- sh -c 'exit 5'")
  end)

  it("begins in a boot sector without a BIOS where that is said", function()
    ends(124, "luna: the guest has not ended", "boot disk.img --bios none --timeout 0.3 -m 1M",
      "LUNA_ACCEL=soft")
  end)

  it("does what the examples of its help say", function()
    if not luna.probe().accelerators.soft.available then pending "no software CPU" end
    local count = 0
    for _, words in ipairs { "--help", "run --help", "boot --help", "report --help", "repl --help",
      "map --help" } do
      for example in (run(words)):gmatch "\n  luna ([^\n]+)" do
        local output, status = run(example, "LUNA_ACCEL=soft")
        local expected = example:find "disk" or example:find "floppy"
        expected = expected and not has_bios and 126 or 0
        assert.equal(expected, status, example .. "\n" .. output)
        count = count + 1
      end
    end
    assert.equal(23, count)
  end)

  it("boots what is a floppy disk by its size, or is said to be one", function()
    if not has_bios then pending "seabios is not installed" end
    if not luna.probe().accelerators.soft.available then pending "no software CPU" end
    local function says(text, words)
      local output, status = run("boot --accel soft --timeout 120 " .. words)
      assert.equal(0, status, output)
      assert.equal(text, output:sub(1, #text))
    end
    says("0!", "floppy.img")
    says("0\0", "--floppy sector.bin")
    says("0!", "--floppy floppy.img --disk disk.img")
    says("0!", "disk.img --floppy floppy.img")
    says("\176", "floppy.img --format disk") -- a hard disk, on which that is another sector
    says("\176", "sector.bin")
  end)

  it("boots a disk through SeaBIOS, types, and shows the screen", function()
    if not has_bios then pending "seabios is not installed" end
    if not luna.probe().accelerators.soft.available then pending "no software CPU" end
    ends(120, "", "boot disk.img --accel soft --timeout 120 --wait-for login: --send '\\n' --type x"
      .. " --screenshot screen.png")
    local picture = assert(io.open(directory .. "/screen.png", "rb"))
    assert.equal("\137PNG\r\n\26\n", picture:read(8))
    picture:close()
  end)
end)
