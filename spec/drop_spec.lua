-- SPDX-License-Identifier: MIT
-- Exits that are dropped: by cpu:drop, by putting the vCPU elsewhere.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex = luna.hex

local READ = "mov eax, 0x11223344\n mov ebx, [0x80000]\n in al, 0x60\n hlt"

-- A guest in 32-bit mode with an `in al, 0x10` and a `hlt` at 0x2000.
local function guest_of(source, options)
  options = options or {}
  options.mode, options.source, options.size = "protected", source, "64K"
  local guest = helper.guest(options)
  guest.ram:write(0x2000, "\xe4\x10\xf4")
  return guest
end

helper.kvm("an exit that is open", function()
  it("is dropped where the script goes elsewhere", function()
    for _, source in ipairs { "mov eax, [0x80000]", "in al, 0x60", "mov [0x80000], al",
      "out 0x60, al", "rep insb", "add [0x80000], eax", "push dword [0x80000]" } do
      local guest = guest_of("mov edi, 0x3000\n mov ecx, 9\n mov esp, 0x4000\n" .. source)
      local exit = guest.cpu:run { timeout = 60 }
      local rip = exit.rip
      guest.cpu.rip = 0x2000
      assert.equal(hex(rip), hex(exit.rip))
      local read = exit.access == "r"
      local rsp = guest.cpu.rsp
      exit = guest:stops "pio"
      assert.same({ "0x2000", 0x10 }, { hex(exit.rip), exit.port }, source)
      guest.cpu:answer(0)
      guest:stops "hlt"
      assert.equal(hex(rsp), hex(guest.cpu.rsp))
      if read then assert.equal("0x4000", hex(rsp)) end
    end
  end)

  it("is dropped by cpu:drop, and a read comes anew", function()
    local guest = guest_of(READ)
    local first = guest:stops "fault"
    assert.is_true(guest.cpu:drop())
    helper.raises("vCPU 0 has no open exit to drop", function() guest.cpu:drop() end)
    local second = guest:stops "fault"
    assert.same({ hex(first.rip), first.gpa }, { hex(second.rip), second.gpa })
    guest.cpu:answer(5)
    guest:stops "pio"
    guest.cpu:drop()
    assert.same({ "0x11223344", "0x5" }, { hex(guest.cpu.rax), hex(guest.cpu.rbx) })
    guest:stops "pio"
    guest.cpu:answer(6)
    guest:stops "hlt"
    assert.equal("0x11223306", hex(guest.cpu.rax))
  end)

  it("loses a write that is dropped", function()
    local guest = guest_of "mov [0x80000], al\n out 0x10, al\n hlt"
    guest:stops "fault"
    guest.cpu:drop()
    guest:stops "pio"
    guest.cpu:drop()
    guest:stops "hlt"
    assert.equal(3, guest.cpu.exits)
  end)

  it("is no step of its own", function()
    local guest = guest_of "in al, 0x60"
    guest:stops "pio"
    guest.cpu.rip = 0x2000
    guest.vm:pio(0x10, 1, { read = function() return 0 end })
    assert.equal("debug", guest.cpu:step().kind)
    assert.equal("0x2002", hex(guest.cpu.rip))
  end)

  it("is dropped in its handler, which goes on", function()
    local guest = guest_of(READ)
    local seen = {}
    guest.cpu:on("fault", function(cpu, exit)
      seen[#seen + 1] = hex(exit.rip)
      cpu.rip = 0x2000
      return "continue"
    end)
    local exit = guest:stops "pio"
    assert.same({ "0x1005" }, seen)
    assert.equal("0x2000", hex(exit.rip))
    guest.cpu:answer(0)
    guest.cpu:on("fault", function(cpu) cpu.rip = 0x2002 return 7 end)
    guest.cpu.rip = 0x1005
    local ok, message = pcall(guest.cpu.run, guest.cpu, { timeout = 60 })
    assert.is_false(ok)
    helper.contains('with 7, but it had answered or dropped it before, or set cpu.rip', message)
    guest:stops "hlt"
  end)

  it("may be answered by its handler, which goes on", function()
    local guest = guest_of "in al, 0x60\n hlt"
    guest.cpu:on("pio", function(cpu) cpu:answer(9) return "continue" end)
    guest:stops "hlt"
    assert.equal("0x9", hex(guest.cpu.rax))
  end)

  it("is dropped under vm:run, also by a handler", function()
    local guest = guest_of(READ)
    local exit = guest.vm:run { timeout = 60 }
    assert.equal("fault", exit.kind)
    guest.cpu.rip = 0x2000
    exit = guest.vm:run { timeout = 60 }
    assert.same({ "pio", "0x2000" }, { exit.kind, hex(exit.rip) })
    guest.cpu:on("pio", function(cpu) cpu.rip = 0x2002 return "continue" end)
    assert.equal("hlt", guest.vm:run({ timeout = 60 }).kind)
  end)

  it("leaves an exception that nobody has seen", function()
    local guest = guest_of "ud2"
    guest.cpu:start()
    local t = luna.clock()
    repeat until guest.cpu.exits > 0 or luna.clock() - t > 60
    guest.cpu:join()
    guest.cpu.rip = 0x2000
    guest:stops "pio"
  end)
end)
