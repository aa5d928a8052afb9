-- SPDX-License-Identifier: MIT
-- The prompt: what each line does, in this process, and luna.repl as a script has it.

local complete = require "lunavisor.repl.complete"
local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local sessions = require "lunavisor.repl.session"
local show = require "lunavisor.repl.show"

local contains, raises = helper.contains, helper.raises
local SOURCE = [[
  start: mov ecx, 3
  again: call work
  dec ecx
  jnz again
  out 0x10, al
  hlt
  work: inc eax
  mov [0x3000], eax
  ret]]

-- A session about a guest in long mode: session.ask(line) gives what is shown, session.fails(line)
-- the message.
local function session_of(source, options)
  options = options or {}
  options.mode, options.source = options.mode or "long", source or SOURCE
  local guest = helper.guest(options)
  local _, labels = luna.asm(options.source, { bits = 64, org = 0x1000 })
  guest.vm.symbols = labels
  local made = { guest = guest, said = {} }
  made.session = helper.keep(sessions.new({ vm = guest.vm }, function(text)
    made.said[#made.said + 1] = text
  end))
  function made.ask(line)
    local text, problem, more = made.session:line(line)
    assert.is_nil(problem)
    return more and "more" or text
  end
  function made.fails(line)
    local text, problem = made.session:line(line)
    assert.is_nil(text)
    return problem
  end
  return made
end

describe("what a prompt shows", function()
  it("is hexadecimal for whole numbers", function()
    assert.equal("5", show.text(5))
    assert.equal("0x1000 (4096)", show.text(4096))
    assert.equal("0x1000 (4096)", show.text(luna.u64(4096)))
    assert.equal("0xfedcba9876543210", (show.text(luna.u64 "0xfedcba9876543210"):gsub(" .*", "")))
    assert.equal("1.5", show.text(1.5))
  end)

  it("is what is in tables, and the first line of objects in them", function()
    assert.equal('{ 1, "a\\nb", x = { y = true } }', show.text { 1, "a\nb", x = { y = true } })
    assert.equal("{}", show.text {})
    assert.equal("{ [0] = 1, [true] = 2 }", show.text { [0] = 1, [true] = 2 })
    assert.equal("{ { { {...} } } }", show.text { { { { 1 } } } })
    assert.equal("a\nb", show.text "a\nb")
    local many = {}
    for i = 1, 70 do many[i] = 1000 + i end
    contains("0x3e9 (1001),\n  0x3ea (1002)", show.text(many))
    contains("...", show.text(many))
    local object = setmetatable({}, { __tostring = function() return "one\ntwo" end })
    assert.equal("one\ntwo", show.text(object))
    assert.equal("{ one }", show.text { object })
  end)
end)

helper.kvm("a prompt", function()
  it("shows what expressions give, and does the rest", function()
    local prompt = session_of()
    assert.equal("2", prompt.ask "1 + 1")
    assert.equal("0x1000 (4096)\n0x20 (32)", prompt.ask "cpu.rip, 32")
    assert.equal("", prompt.ask "cpu.rax = 7")
    assert.equal("7", prompt.ask "cpu.rax")
    assert.equal("nil", prompt.ask "nil")
    assert.equal("", prompt.ask "  ")
    prompt.ask "print(1, 'x')"
    assert.equal("1\tx\n", prompt.said[1])
    contains("did you mean 'rax'?", prompt.fails "cpu.rxa")
    contains("attempt to index", prompt.fails "nothing.x")
    assert.equal("true\ntrue\ntrue", prompt.ask "vm == cpu.vm, space == vm.default, luna ~= nil")
    assert.equal("there is no command and no name hepl; did you mean 'help'?", prompt.fails "hepl")
  end)

  it("takes more lines for what is not whole", function()
    local prompt = session_of()
    assert.equal("more", prompt.ask "for i = 1, 2 do")
    assert.equal("more", prompt.ask "print(i)")
    assert.equal("", prompt.ask "end")
    assert.same({ "1\n", "2\n" }, prompt.said)
    assert.equal("more", prompt.ask "1 +")
    assert.equal("3", prompt.ask "2")
    assert.equal("more", prompt.ask "do")
    contains("'end' expected", prompt.fails "")
    prompt.ask "do"
    prompt.session:forget()
    assert.equal("1", prompt.ask "1")
  end)

  it("sets the script's globals, and the names that it was given", function()
    local prompt = session_of()
    prompt.ask "function spec_of_repl() return 5 end"
    assert.equal(5, rawget(_G, "spec_of_repl")())
    rawset(_G, "spec_of_repl", nil)
    local second = helper.keep(prompt.guest.vm:vcpu {})
    prompt.ask "cpu = vm.vcpus[2]"
    assert.equal(second, prompt.session:cpu())
  end)

  it("steps, over calls too, and says what has changed", function()
    local prompt = session_of()
    contains("at rip 0x1005 <again>", prompt.ask "s")
    assert.equal("rcx 0x0 -> 0x3, rip 0x1000 -> 0x1005", prompt.session:changes())
    local text = prompt.ask "n"
    contains("at rip 0x100a <again+0x5>", text)
    contains("changed: rax 0x0 -> 0x1", text)
    contains("rax*      0000000000000001", prompt.ask "r")
    contains("rcx       0000000000000003", prompt.ask "r")
    contains("cs (selector 0x8", prompt.ask "r")
    contains("\nChanged, with * below: " .. prompt.session:changes() .. "\n", prompt.ask "why")
    contains("at rip 0x1005 <again>", prompt.ask "s 2")
    contains("\nChanged, with * below: " .. prompt.session:changes() .. "\n", prompt.ask "why")
    contains("rcx*      0000000000000002", prompt.ask "why")
    contains("at rip 0x1013 <work+0x2>", prompt.ask "s 2")
    contains("at rip 0x100a", prompt.ask "c again + 5")
    assert.equal("s: a count from 1 on expected", prompt.fails "s 0")
  end)

  it("goes on until something stops the guest, and says why", function()
    local prompt = session_of()
    prompt.guest.vm:pio(0x10, 1, { name = "bell", write = function() end })
    assert.equal("nothing has stopped the guest yet", prompt.fails "why")
    contains("hlt at rip 0x1011", prompt.ask "c")
    contains("Likely: HLT with interrupts off", prompt.ask "why")
    contains("pio (write of 1 byte at port 0x10, value 0x3)", prompt.ask "exits")
    assert.falsy(prompt.ask("exits 1"):find "pio")
    assert.equal("hlt", prompt.session.exit.kind)
  end)

  it("stops where it was told to", function()
    local prompt = session_of()
    local text, problem = prompt.session:line "b work if cpu.rcx == luna.u64(2)"
    if not text then pending(problem) end
    assert.equal("1: break at 0x1011 <work> if cpu.rcx == luna.u64(2)", text)
    contains("at rip 0x1011", prompt.ask "c")
    assert.equal("2", prompt.ask "cpu.rcx")
    contains("(2 hits)", prompt.ask "b")
    assert.equal("there is no breakpoint or watch 9", prompt.fails "d 9")
    prompt.ask "d 1"
    assert.equal("none", prompt.ask "b")
    prompt.guest.vm:pio(0x10, 1, { write = function() end })
    contains("hlt", prompt.ask "c")
    prompt.ask "b start"
    prompt.ask "d"
    assert.equal("none", prompt.ask "b")
  end)

  it("stops behind writes that are watched", function()
    local prompt = session_of()
    local text, problem = prompt.session:line "watch 0x3000 4 w"
    if not text then
      contains("watchpoint", problem)
      pending(problem)
    end
    assert.equal("1: watch 4 bytes at 0x3000, written", text)
    prompt.ask "c"
    assert.equal(1, prompt.guest.ram:u32(0x3000))
  end)

  it("stops behind accesses of devices, or of one register", function()
    local prompt = session_of("in al, 0x40\n mov al, 7\n out 0x41, al\n in al, 0x42\n hlt")
    prompt.guest.vm:attach(device "bell" { width = 1, registers = {
      A = { at = 0 }, B = { at = 1 }, C = { at = 2, fields = { loud = 0 } } } } {}, { pio = 0x40 })
    contains("bell", prompt.ask "dev")
    contains("the device has no register D on its bus", prompt.fails "watch bell.D")
    assert.equal("1: watch bell.B", prompt.ask "watch bell.B")
    contains("stopped at rip 0x1006", prompt.ask "c")
    contains("bell.B: write of 1 byte, value 0x7", tostring(prompt.session.exit.value))
    contains("B          07", prompt.ask "dev bell")
    prompt.ask "d"
    prompt.ask "watch bell"
    prompt.ask "c"
    assert.equal("bell at offset 0x2: read of 1 byte, value 0x0", prompt.session.exit.value)
    assert.same({ "bell.C.loud" }, (function()
      prompt.session.given.bell = prompt.guest.vm.devices.bell
      return complete.words(prompt.session, "bell.C.l")
    end)())
  end)

  it("shows code, memory and calls, by symbols and registers", function()
    local prompt = session_of()
    prompt.guest.ram:write(0x3000, "hello\0\255")
    contains("0x3000: 68 65 6c 6c 6f 00 ff 00", prompt.ask "x 0x3000 16")
    contains("|hello..", prompt.ask "x 0x3000")
    contains("0x7ff8: 00", prompt.ask "x rsp - 8 16")
    contains("leads to gpa 0x40000000, where space 0 has nothing mapped",
      prompt.fails "x 0x40000000")
    assert.equal("x: an address expected", prompt.fails "x")
    contains("0xffffffff80000000", prompt.fails "x 0xffffffff80000000 4")
    contains("is no address and no number", prompt.fails "x vm")
    contains("#0  rip 0x1000", prompt.ask "bt")
    if luna.disasm "\x90" then
      assert.equal("work:\n   0x1011: ff c0  inc eax", (prompt.ask("u work 1"):gsub("^%s+", "")
        :gsub("\n0x1011", "\n   0x1011")))
      contains("=> 0x1000:", prompt.ask "u")
    end
  end)

  it("tells what the guest did where nobody is", function()
    local prompt = session_of("in al, 0x77\n hlt", { vm = { unknown = "ones" } })
    assert.equal("none", prompt.ask "unknown")
    prompt.ask "c"
    assert.equal("read of 1 byte at port 0x77, 1 time", prompt.ask "unknown")
  end)

  it("has commands for parts of a machine", function()
    local prompt = session_of()
    assert.equal("this VM has no device vga", prompt.fails "screen")
    assert.equal("this VM has neither a device keyboard nor com1", prompt.fails 'type "x"')
    local name = helper.file ""
    assert.equal("", prompt.ask("core " .. name))
    contains("No such file", prompt.fails "core /no/where/x")
    local pc = helper.keep(luna.machine("pc", { memory = "1M", serial = function() end }))
    prompt.session.given.vm, prompt.session.given.cpu = pc, pc.vcpus[1]
    assert.equal("", prompt.ask 'type "dir\\n"')
    assert.equal(25, select(2, (prompt.ask "screen" .. "\n"):gsub("\n", "")))
    contains("is no command and no name", prompt.fails "scren")
  end)

  it("says where there is nothing at hand", function()
    local session = sessions.new({}, print)
    local function fails(line) return (select(2, session:line(line))) end
    assert.equal("there is no vCPU at hand: say cpu = ... or vm = ...", fails "r")
    assert.equal("there is no VM at hand: say vm = ...", fails "dev")
    assert.equal("2", session:line "1 + 1")
  end)

  it("runs several vCPUs, and is told of exits beside it", function()
    local prompt = session_of("jmp $")
    local vm = prompt.guest.vm
    prompt.guest.ram:write(0x2000, "\xf4")
    helper.keep(vm:vcpu { mode = "long", rip = 0x2000, rsp = 0x9000 })
    contains("hlt at rip 0x2001", prompt.ask "c")
    assert.is_nil(prompt.session:idle())
    vm.vcpus[2].rip = 0x2000
    vm:start()
    local text
    helper.within(function()
      text = prompt.session:idle()
      return text
    end)
    contains("hlt at rip 0x2001", text)
    vm:stop()
  end)

  it("in a handler goes on with the guest by leave alone", function()
    local prompt = session_of("hlt")
    local problem
    prompt.guest.cpu:on("hlt", function() problem = prompt.fails "c" end)
    prompt.guest:run()
    contains("the guest waits for the handler", problem)
    prompt.ask "leave 5, 'x'"
    assert.same({ "leave", 2, 5, "x" }, prompt.session.leaving)
  end)

  it("has help for all that there is", function()
    local prompt = session_of()
    local text = prompt.ask "help"
    for name in ("s n c b d watch r u x bt why exits dev screen type unknown gdb core help leave "
      .. "quit"):gmatch "%S+" do
      contains("\n  " .. name .. " ", "\n" .. text)
      contains(name .. " ", prompt.ask("help " .. name))
    end
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    contains("there is no command wats", prompt.fails "help wats")
  end)

  it("takes names with something behind them that makes Lua for Lua", function()
    local prompt = session_of()
    for _, line in ipairs { "x = 5", "x=5" } do prompt.ask(line) end
    assert.equal(5, rawget(_G, "x"))
    rawset(_G, "x", nil)
    assert.equal("string", prompt.ask "type('x')")
  end)

  it("completes commands, objects, fields, registers, symbols and devices", function()
    local prompt = session_of()
    local function words(text) return table.concat(complete.words(prompt.session, text), " ") end
    assert.equal("cpu.rflags", words "print(cpu.rfl")
    assert.equal("cpu:translate", words "cpu:trans")
    assert.equal("", words "cpu:rfl")
    assert.equal("cpu.cs.selector", words "cpu.cs.sel")
    assert.equal("vm.symbols.work", words "vm.symbols.w")
    assert.equal("work", words "u wor")
    assert.equal("rflags", words "x rfl")
    assert.equal("watch while", (words "w" .. " while"):match "watch" .. " while")
    contains("unknown", words "unk")
    assert.equal("string.format string.find", words "string.fo" .. " " .. words "string.fin")
    assert.equal("", words "nothing.x")
    assert.equal("", words "nothing.x.y")
    assert.equal("luna.machine", words "x = luna.mach")
  end)
end)

helper.kvm("luna.repl", function()
  local GUEST = [[
    local luna = require "lunavisor"
    local vm, ram = luna.vm(), luna.buffer "64K"
    vm.default:map(ram, 0)
    ram:write(0x1000, luna.asm("in al, 0x10\n hlt", { bits = 16, org = 0x1000 }))
    local cpu = vm:vcpu { rip = 0x1000 }
    cpu:on("pio", function(cpu, exit)
      return luna.repl({ cpu = cpu, exit = exit, state = { answer = 7 } })
    end)
    print(cpu:run({ timeout = 60 }).kind, luna.hex(cpu.rax))
  ]]

  it("asks in a handler, and returns what it is left with", function()
    local output = helper.sh(("printf '%%s\\n' exit.port s 'state.answer = 9' 'leave state.answer'"
      .. " | %s"):format(helper.command(helper.file(GUEST))))
    contains("0x10 (16)\nerror: the guest waits for the handler", output)
    contains("hlt\t0x9", output)
  end)

  it("ends with the input", function()
    local output = helper.sh(("printf '' | %s"):format(helper.command(helper.file(GUEST))))
    contains("pio\t0x0", output)
  end)

  it("refuses what is no table of names", function()
    raises("luna.repl: a table of names expected, got number", function() luna.repl(5) end)
    raises("luna.repl: unknown option 'path'", function() luna.repl({}, { path = "x" }) end)
    local _, message, code = luna.repl({}, { socket = "/no/where/x" })
    contains("/no/where/x", message)
    assert.equal("system", code)
  end)
end)
