-- SPDX-License-Identifier: MIT
-- The options of the program luna that look at a run and take part in it: --record, --watch, --gdb.

local helper = require "spec.support.helper"
local program = require "spec.support.program"
local contains = helper.contains

local directory

local function run(words, before)
  return program.luna(directory, words, before)
end

local function ends(...) return program.ends(directory, ...) end

local function write(name, text)
  local file = assert(io.open(directory .. "/" .. name, "wb"))
  file:write(text)
  file:close()
end

-- A device whose register A reads as `value`, and a script that runs a guest until that is 7, and
-- then writes the file anew.
local BEEPER = 'return require "lunavisor.device" "beep" { width = 4, registers = {\n'
  .. 'A = { at = 0, read = function() return %s end } } }\n'
local WAITER = [[
local luna = require "lunavisor"
local vm, ram = assert(luna.vm()), assert(luna.buffer "1M")
vm:map_space(0, ram, 0, ram.size, "rwx")
ram:write(0x1000, luna.asm("again: mov eax, [0x800000]\n cmp eax, 7\n jne again\n hlt",
  { bits = 32, org = 0x1000 }))
vm:attach(dofile "beep.lua", { mmio = 0x800000 })
local cpu = assert(vm:vcpu { mode = "protected", rip = 0x1000 })
local texts = { ... }
for i, text in ipairs(texts) do
  vm:timer(0.4 * i, function()
    local file = assert(io.open("beep.lua", "w"))
    file:write(text)
    file:close()
  end)
end
print(cpu:run { timeout = 60 }.kind)
]]

-- A guest that begins in each of these ways, and has a second.
local LATE = [[
local luna = require "lunavisor"
local vm, ram = assert(luna.vm()), assert(luna.buffer "1M")
vm:map_space(0, ram, 0, ram.size, "rwx")
ram:write(0x1000, luna.asm("inc ax\n hlt", { bits = 16 }))
local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000 })
local function poll()
  local deadline, exit = luna.clock() + 60, nil
  repeat exit = vm:poll() until exit or luna.clock() > deadline
  return exit or "nothing came"
end
local ways = {
  cpu_run = function() return cpu:run { timeout = 1 } end,
  cpu_step = function() cpu:step(1, { timeout = 1 }) return cpu:run { timeout = 1 } end,
  vm_run = function() return vm:run { timeout = 1 } end,
  cpu_start = function() assert(cpu:start()) return poll() end,
  vm_start = function() assert(vm:start()) return poll() end,
}
print(ways[...]())
]]

local WAYS = { "cpu_run", "cpu_step", "vm_run", "cpu_start", "vm_start" }

helper.kvm("the options of luna run and luna boot", function()
  setup(function()
    directory = program.directory()
    write("wait.lua", WAITER)
    write("late.lua", LATE)
  end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  it("read a device again when its file changes", function()
    write("beep.lua", BEEPER:format(1))
    local output = ends(0, "hlt", ("run --watch wait.lua '%s' '%s' '%s' '%s'"):format("x x",
      "return 5", BEEPER:format "nil":gsub("A =", "A2 ="), BEEPER:format(7)))
    contains("luna: beep is as before: beep.lua:1:", output)
    contains("luna: beep is as before: beep.lua: a device of the kit expected", output)
    contains("luna: beep is read again from beep.lua; of its state differs: the device has", output)
  end)

  it("say of a device in the script that it is not read again", function()
    write("own.lua", [[
      local vm = assert(require("lunavisor").vm())
      vm:attach(require "lunavisor.device" "own" { registers = { A = { at = 0 } } }, { pio = 1 })]])
    contains("luna: --watch: own is in the script itself", (ends(0, "", "run --watch own.lua")))
  end)

  it("record what comes to devices", function()
    ends(42, "", "boot status.elf --timeout 120 --record boot.rec")
    local text = helper.sh(("cat %s/boot.rec"):format(directory))
    contains("lunavisor recording 1\n", text)
    contains(" debug_exit\n", text)
    assert.matches("\nend 1$", text)
    write("two.lua", [[
      local luna = require "lunavisor"
      for _ = 1, 2 do luna.vm() end
      os.exit(3)]])
    ends(3, "", "run --record two.rec two.lua")
    contains("end 0", (helper.sh(("cat %s/two.rec.2"):format(directory))))
    ends(126, "luna: --record: /no/where: No such file", "run --record /no/where hello.lua")
  end)

  it("add devices of one's own", function()
    ends(7, "", "boot adder.elf --timeout 120 --device adder.lua")
    write("bare.lua", "return require 'lunavisor.device' 'bare' { registers = { A = { at = 0 } } }")
    ends(126, "luna: --device: bare.lua: no place is said", "boot adder.elf --device bare.lua")
    write("over.lua", "return { dofile 'bare.lua', pio = 0x3f8 }")
    ends(126, "luna: --device: over.lua: vm:attach: bare at port 0x3f8..0x3fb overlaps the device",
      "boot adder.elf --device over.lua")
    ends(126, "luna: --device: cannot open none.lua", "boot adder.elf --device none.lua")
  end)

  it("give a guest that cannot go on to gdb", function()
    if select(2, helper.sh "command -v gdb") ~= 0 then pending "gdb is not installed" end
    local output = run(([[boot triple.elf --on-panic gdb 2>said & pid=$!
      until port=$(sed -n "s/.*target remote :\([0-9]*\)$/\1/p" said) && [ "$port" ]; do
        kill -0 $pid || break; sleep 0.05
      done
      %s -nx -batch -ex "target remote :$port" -ex "monitor cpu.id" -ex detach
      wait $pid; echo "status $?"]]):format(helper.program "timeout 240 gdb"))
    contains("\n0\n", output)
    contains("status 125", output)
    local said = helper.sh(("cat %s/said"):format(directory))
    contains("cannot go on: shutdown (triple fault)", said)
    ends(126, "luna: argument for option '--on-panic' must be one of", "boot x --on-panic weep")
  end)

  it("give a guest that cannot go on to the prompt", function()
    local output, status = run("boot triple.elf --on-panic repl",
      "printf '%s\\n' exit.kind 'cpu.id + 40' |")
    assert.equal(125, status)
    contains("shutdown", output)
    contains("40", output)
  end)

  it("draw what is where", function()
    local picture = ends(0, "0x3f8..0x3ff  com1", "map --machine microvm")
    assert.matches('^<svg xmlns="http://www.w3.org/2000/svg" ', picture)
    contains("0x0..0x7ffffff  rwx, slot 0, buffer ", picture)
    assert.matches("</svg>$", picture)
    write("drawn.lua", [[
      local luna = require "lunavisor"
      local vm, ram = assert(luna.vm()), assert(luna.buffer "8K")
      vm:map_space(0, ram, 0x0, 0x1000, "r-x")
      assert(vm:space()):map(ram, 0x10000)
      vm:mmio(0x5000, 0x100, { read = print, name = "<lamp>" })
      vm:pio(0x60, 1, { read = print })
      vm:msr(0x8b, { read = print })
      if ... == "run" then
        vm:vcpu { mode = "real", rip = 0x1000 }:run()
        os.exit(9)
      elseif ... == "close" then
        vm:close()
      end]])
    for _, how in ipairs { "", "run", "close" } do
      assert.equal("", (ends(0, "", "map -o drawn.svg drawn.lua " .. how)))
      local text = helper.sh(("cat %s/drawn.svg"):format(directory))
      contains("vm on ", text)
      contains("space 1<", text)
      contains("0x0..0xfff  r-x, slot ", text)
      contains("0x5000..0x50ff  &lt;lamp&gt;", text)
      contains("0x60..0x60  port 0x60", text)
      contains("0x8b..0x8b  MSR 0x8b", text)
    end
    local text = ends(0, "", "map drawn.lua")
    contains("<title>0x0..0xfff  r-x, slot 0, buffer 1+0x0</title>", text)
    local lines = {} -- y of what is drawn, by its text
    for y, name in text:gmatch '<text class="map" x="[%d.]+" y="(%d+)"[^>]*>([^<]*)</text>' do
      lines[name] = lines[name] or tonumber(y)
    end
    assert.equal(lines["0x0"], lines["..0xfff"])
    assert.equal(lines["0x0"], lines["r-x, slot 0"])
    assert.is_true(lines["0x5000"] > lines["0x0"] + 22) -- nothing is between them
    ends(126, "luna: hello.lua makes no VM", "map hello.lua")
    ends(126, "luna: --output: /no/where: No such file", "map -o /no/where")
    write("bad.lua", "error 'no good'")
    ends(1, "no good", "map bad.lua")
  end)

  it("draw what is long or much so that it is seen", function()
    write("much.lua", [[
      local luna = require "lunavisor"
      local vm, ram = assert(luna.vm()), assert(luna.buffer "64K")
      vm:mmio(0x8000, 0x10, { read = print, name = ("long\195\164\255"):rep(40) })
      vm.default:map(ram, 0) -- over it
      for i = 0, 40 do vm:pio(16 * i, 1, { read = print, name = "port" .. i }) end
      for _ = 1, 3 do vm:space() end]])
    local text = ends(0, "", "map much.lua")
    local width, height = text:match '<svg [^>]- width="(%d+)" height="(%d+)"'
    width, height = tonumber(width), tonumber(height)
    assert.equal(2 * 12 + 3 * 376 - 18, width) -- three columns, of which there are seven
    local lowest, names = 0, 0
    local pattern = '<text class="map" x="([%d.]+)" y="(%d+)"([^>]*)>([^<]*)<'
    for x, y, rest, name in text:gmatch(pattern) do
      if name:find "^port%d" then names = names + 1 end
      lowest = math.max(lowest, tonumber(y))
      local length = #name:gsub("[\128-\191]", "")
      if rest == "" then assert.is_true(tonumber(x) + 7.25 * length < width, name) end
    end
    assert.equal(41, names)
    assert.is_true(lowest < height)
    contains("ports, further", text)
    contains("\\xff", text)
    assert.is_nil(text:find("[\254\255]"))
    local _, shifted = text:gsub('<rect class="map%-row map%-device" x="24"', "")
    assert.equal(1, shifted) -- within the memory
  end)

  it("let gdb have a script's guest", function()
    ends(126, "luna: --gdb: a port from 0 to 65535 expected", "run --gdb 70000 wait.lua")
    write("taken.lua", [[
      local luna = require "lunavisor"
      local port = assert(luna.vm()):gdb { port = 45671 }
      assert(luna.vm()):vcpu { mode = "real" }:run { timeout = 1 }]])
    ends(126, "luna: --gdb: ", "run --gdb 45671 taken.lua")
    if select(2, helper.sh "command -v gdb") ~= 0 then pending "gdb is not installed" end
    write("beep.lua", BEEPER:format(7))
    local function session(commands, script)
      local said = helper.file ""
      return run(([[run --gdb 0 %s 2>%s & pid=$!
        until port=$(sed -n "s/.*target remote :\\([0-9]*\\)$/\\1/p" %s) && [ "$port" ]; do
          kill -0 $pid || break; sleep 0.05
        done
        %s -nx -batch -ex "target remote :$port" %s
        wait $pid; echo "status $?"]]):format(script or "wait.lua", said, said,
        helper.program "timeout 240 gdb", commands))
    end
    local output = session [[-ex stepi -ex 'monitor cpu.id' -ex detach]]
    contains("\n0\n", output)
    contains("hlt", output)
    contains("status 0", output)
    output = session "-ex kill"
    assert.is_nil(output:find("hlt", 1, true))
    contains("status 0", output)
    for _, how in ipairs(WAYS) do
      output = session("-ex 'monitor luna.hex(cpu.rip)' -ex detach", "late.lua " .. how)
      contains("\n0x1000\n", output)
      contains("hlt", output)
    end
  end)

  it("do not count the time at a prompt as the run's", function()
    for _, how in ipairs(WAYS) do
      local output = ends(0, "hlt", "repl late.lua " .. how,
        "printf '%s\\n' 'os.execute [[sleep 1.2]]' 'luna.hex(vm.vcpus[1].rip)' leave |")
      contains("0x1000", output)
      assert.is_nil(output:find("timeout", 1, true), how)
    end
  end)
end)
