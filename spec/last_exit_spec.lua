-- SPDX-License-Identifier: MIT
-- The last exits of a vCPU, which are always kept.

local helper = require "spec.support.helper"
local contains, raises = helper.contains, helper.raises

helper.kvm("cpu:last_exits", function()
  local function guest(source)
    return helper.guest { mode = "long", source = source .. "\n hlt" }
  end

  it("has what devices answered, in order", function()
    local g = guest "mov dx, 0x60\n in al, dx\n out 0x61, al\n mov ebx, 0xd0000000\n mov eax, [rbx]"
    g.vm:pio(0x60, 2, { read = function() return 7 end, write = function() end })
    g.vm:mmio(0xd0000000, 8, { read = function() return 0x12345678 end })
    assert.equal(0, #g.cpu:last_exits())
    g:stops "hlt"
    local list = g.cpu:last_exits()
    assert.equal(4, #list)
    assert.same({ "pio", "pio", "mmio", "hlt" },
      { list[1].kind, list[2].kind, list[3].kind, list[4].kind })
    assert.same({ 0x60, 1, "r", 7 }, { list[1].port, list[1].size, list[1].access, list[1].value })
    assert.same({ 0x61, 1, "w", 7 }, { list[2].port, list[2].size, list[2].access, list[2].value })
    assert.same({ 0xd0000000, 4, "r", 0x12345678 },
      { list[3].gpa, list[3].size, list[3].access, list[3].value })
    assert.equal(g.cpu.exits, list[4].serial)
    assert.equal(g.cpu.rip, list[4].rip)
    contains("pio (read of 1 byte at port 0x60, answered 0x7)\n"
      .. "pio (write of 1 byte at port 0x61, value 0x7)\n"
      .. "mmio (read of 4 bytes at gpa 0xd0000000, answered 0x12345678)\nhlt at rip 0x",
      tostring(list):gsub(" at rip 0x%x+\n", "\n") .. "")
  end)

  it("has one of the timeouts of a vCPU that is run a slice at a time", function()
    local g = guest "out 0x60, al\n again: jmp again"
    g.vm:pio(0x60, 1, { write = function() end })
    for _ = 1, 70 do assert.equal("timeout", g.cpu:run({ timeout = 0.002 }).kind) end
    local list = g.cpu:last_exits()
    if list[1].kind == "timeout" then table.remove(list, 1) end -- before its first instruction
    assert.same({ "pio", "timeout", g.cpu.exits }, { list[1].kind, list[2].kind, list[2].serial })
    assert.equal(2, #list)
  end)

  it("gives as many as are asked for, and not more than it keeps", function()
    local g = guest "mov ecx, 100\n again: in al, 0x60\n loop again"
    local count = 0
    g.vm:pio(0x60, 1, { read = function()
      count = count + 1
      return count
    end })
    g:stops "hlt"
    assert.equal(64, #g.cpu:last_exits())
    assert.equal(64, #g.cpu:last_exits(1000))
    local list = g.cpu:last_exits(3)
    assert.same({ 99, 100 }, { list[1].value, list[2].value })
    assert.equal("hlt", list[3].kind)
    assert.equal(0, #g.cpu:last_exits(0))
    raises("cpu:last_exits: count", function() g.cpu:last_exits(-1) end)
    raises("a past exit has no field 'prot'; did you mean 'port'?",
      function() return list[1].prot end)
  end)

  it("knows where handlers have looked", function()
    local g = guest "in al, 0x60\n in al, 0x61"
    local rips = {}
    g.cpu:on("pio", function(cpu)
      rips[#rips + 1] = cpu.rip
      return 1
    end)
    g:stops "hlt"
    local list = g.cpu:last_exits()
    assert.same({ rips[1], rips[2] }, { list[1].rip, list[2].rip })
    contains("at rip 0x", tostring(list[1]))
  end)

  it("has where the exit was, wherever a handler sends the guest", function()
    local g = guest "lea rbx, [rel away]\n out 0x60, al\n hlt\n away: out 0x61, al"
    local at
    g.cpu:on("pio", function(cpu, exit)
      if exit.port == 0x60 then
        at = cpu.rip
        cpu.rip = cpu.rbx
      end
      return "continue"
    end)
    g:stops "hlt"
    assert.equal(at, g.cpu:last_exits()[1].rip)
    assert.equal(0x61, g.cpu:last_exits()[2].port)
  end)

  it("has what was not answered without a value, and wide ones whole", function()
    local g = guest "in al, 0x60\n mov ebx, 0xd0000000\n mov rax, [rbx]"
    g:stops "pio"
    assert.is_nil(g.cpu:last_exits(1)[1].value)
    assert.equal("pio (read of 1 byte at port 0x60)",
      (tostring(g.cpu:last_exits()):gsub(" at rip.*", "")))
    g.cpu:answer(5)
    assert.equal(5, g.cpu:last_exits(1)[1].value)
    g:stops "fault"
    g.cpu:answer(require("lunavisor").u64(1, 2))
    assert.equal(require("lunavisor").u64(1, 2), g.cpu:last_exits(1)[1].value)
  end)
end)
