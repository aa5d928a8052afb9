-- SPDX-License-Identifier: MIT
-- vm:gdb with Debian's gdb and lldb as the clients, in a process of its own, in every mode.

local helper = require "spec.support.helper"
local luna = require "lunavisor"
local contains = helper.contains

local script = [[
  local luna = require "lunavisor"
  local vm, ram = luna.vm(), luna.buffer "1M"
  vm.default:map(ram, 0)
  local code = luna.asm("start: mov cx, 5\n again: inc ax\n mov [0x3000], ax\n dec cx\n"
    .. "jnz again\n out 0x10, al\n jmp start", { bits = %d, org = 0x1000 })
  ram:write(0x1000, code)
  vm:pio(0x10, 1, { write = function() end })
  local cpu = vm:vcpu { mode = %q, rip = 0x1000, rsp = 0x8000 }
  vm:gdb({ stdio = true }):serve { timeout = 20 }
]]

-- What gdb says that is given these commands, and the guest on its end of a pipe.
local function gdb(mode, bits, commands)
  if select(2, helper.sh "command -v gdb") ~= 0 then pending "gdb is not installed" end
  local words = { helper.program "timeout 240 gdb -nx -batch" }
  local function add(command) words[#words + 1] = "-ex '" .. command .. "'" end
  add "set pagination off"
  add "set remotetimeout 20"
  local server = helper.command(helper.file(script:format(bits, mode)))
  add("target remote | sh " .. helper.file("exec " .. server .. "\n"))
  for _, command in ipairs(commands) do add(command) end
  return (helper.sh(table.concat(words, " ")))
end

-- Checks that the output has the parts, in this order.
local function check(output, parts)
  local at = 1
  for _, part in ipairs(parts) do
    local _, last = output:find(part, at, true)
    if not last then error(("%q expected, in this order, in:\n%s"):format(part, output), 2) end
    at = last + 1
  end
end

helper.kvm("gdb", function()
  for mode, about in pairs { real = { 16, 0x1004 }, protected = { 32, 0x1006 },
    long = { 64, 0x1007 }, user = { 64, 0x1007 } } do
    it("works with a guest in mode " .. mode, function()
      local bits, second = about[1], about[2]
      local output = gdb(mode, bits, {
        "info registers pc", "x/2i $pc", "stepi", "stepi", "output $ax", 'printf " is ax\\n"',
        ("break *0x%x"):format(second), "continue", "continue", "output $ax",
        'printf " is ax\\n"', "delete", "output $cr0 & 1", 'printf " is PE\\n"',
        "set var *(char *)0x9000 = 7", "x/1xb 0x9000", "set var $ax = 77", "output $ax",
        'printf " is ax\\n"', "info threads", "monitor cpu:instruction()",
        "x/1xb 0x40000000", "detach",
      })
      check(output, { "0x1000", "mov    $0x5,%cx", "inc    %ax", "1 is ax", "Breakpoint 1, 0x",
        "Breakpoint 1, 0x", "3 is ax", (bits == 16 and 0 or 1) .. " is PE", "0x9000:\t0x07",
        "77 is ax", "vCPU 0 of space 0, ", "mov [0x3000], ax",
        "Cannot access memory at address 0x40000000", "detached]" })
    end)
  end

  it("has every register that it knows, and those of the system", function()
    local output = gdb("long", 64, { "info all-registers", "info float", "detach" })
    for name in ("rax r15 rip eflags cs gs fs_base st7 fctrl fop xmm15 mxcsr cr0 cr4 efer "
      .. "dr7 idtr_base tr_selector"):gmatch "%S+" do
      contains("\n" .. name .. " ", output)
    end
    contains("R7: Empty", output)
    assert.falsy(output:find "packet reply is too long")
  end)

  it("stops behind a write that it watches", function()
    local output = gdb("long", 64, { "watch *(short *)0x3000", "continue", "detach" })
    if output:find "Could not insert hardware" then
      pending "this host's KVM does not stop a guest there"
    end
    check(output, { "Hardware watchpoint 1", "Old value = 0", "New value = 1" })
  end)

  it("lets lldb look too", function()
    local lldb
    for name in ("lldb-14 lldb"):gmatch "%S+" do
      if select(2, helper.sh("command -v " .. name)) == 0 then lldb = lldb or name end
    end
    if not lldb then pending "lldb is not installed" end
    if not luna.probe().accelerators.soft.available then pending "no software CPU" end
    local port = helper.file ""
    local server = helper.file(script:format(64, "long"):gsub("{ stdio = true }", "{ port = 0 }")
      :gsub("vm:gdb(%b())", ("local server = vm:gdb%%1\n local file = io.open(%q, 'w')\n"
        .. "file:write(server.port)\n file:close()\n server"):format(port)))
    local words = { helper.command(server, { env = { LUNA_ACCEL = "soft" } }),
      (" & until test -s %s; do sleep 0.05; done; "):format(port),
      helper.program "timeout 240 ", lldb, " --no-lldbinit --batch" }
    for _, command in ipairs { "gdb-remote $(cat " .. port .. ")", "register read rip cr3",
      "thread step-inst", "thread step-inst", "register read rip rcx",
      "breakpoint set -H -a 0x1007", "continue", "register read rax", "memory write 0x9000 7",
      "memory read --size 1 --count 1 0x9000", "disassemble -s 0x1004 -c 1",
      "process plugin packet send qRcmd,6370752e6964", "thread list", "detach" } do
      words[#words + 1] = (' -o "%s"'):format(command)
    end
    check((helper.sh(table.concat(words))), { "rip = 0x0000000000001000", "cr3 = 0x",
      "stop reason = instruction step into", "rip = 0x0000000000001007",
      "rcx = 0x0000000000000005", "stop reason = breakpoint 1.1", "rax = 0x0000000000000002",
      "0x00009000: 07", "incw   %ax", "response: O300a", "thread #1: tid = 0x0001", "detached" })
  end)
end)
