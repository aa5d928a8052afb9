-- SPDX-License-Identifier: MIT
-- When a run ends although the guest would go on, and the time that the guest takes.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local SPIN = "again: inc ecx\n jmp again"
local SEND = "again: out 0x10, al\n jmp again"

-- A guest that sends without end to a device that counts.
local function sender()
  local guest = helper.guest { source = SEND }
  guest.count = 0
  guest.vm:pio(0x10, 1, { write = function() guest.count = guest.count + 1 end })
  return guest
end

helper.kvm("cpu:run with max_exits", function()
  it("ends after as many exits as devices have dealt with", function()
    local guest = sender()
    for i = 1, 3 do
      local exit = guest:run { max_exits = 5, timeout = 60 }
      assert.equal("limit", exit.kind)
      assert.equal(5 * i, guest.count)
      assert.equal(guest.cpu.rip, exit.rip)
      helper.contains("limit at rip 0x100", tostring(exit))
    end
    assert.equal("limit", guest:run({ max_exits = 1, timeout = 60 }).kind)
    assert.equal(16, guest.count)
  end)

  it("counts the exits of handlers", function()
    local guest = helper.guest { source = "again: hlt\n jmp again" }
    local seen = 0
    guest.cpu:on("hlt", function()
      seen = seen + 1
      return "continue"
    end)
    assert.equal("limit", guest:run({ max_exits = 7, timeout = 60 }).kind)
    assert.equal(7, seen)
  end)

  it("hands the last answer over", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    guest.vm:pio(0x10, 1, { read = function() return 0x5a end })
    assert.equal("limit", guest:run({ max_exits = 1, timeout = 60 }).kind)
    guest:stops "hlt"
    assert.equal("0x5a", luna.hex(luna.u64.band(guest.cpu.rax, 0xff)))
  end)

  it("returns an exit that nobody takes before the limit", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, { write = function() end })
    assert.equal("hlt", guest:run({ max_exits = 3, timeout = 60 }).kind)
  end)

  it("is no limit where there is none", function()
    local guest = sender()
    guest.vm:pio(0x11, 1, { write = function() end })
    helper.within(function()
      assert.equal("timeout", guest:run({ timeout = 0.05 }).kind)
      return guest.count > 5
    end)
  end)

  it("is a whole number from 1", function()
    local guest = helper.guest { source = "hlt" }
    for value, shown in pairs { [0] = "0", [1.5] = "1.5", x = "string" } do
      helper.raises("cpu:run: max_exits: a whole number from 1 to 0x20000000000000 expected, got "
        .. shown, function() guest.cpu:run { max_exits = value } end)
    end
    guest:stops "hlt"
  end)
end)

helper.kvm("cpu:run with a deadline", function()
  it("ends at that moment of luna.clock()", function()
    local guest = helper.guest { source = SPIN }
    local deadline = luna.clock() + 0.03
    assert.equal("timeout", guest:run({ deadline = deadline }).kind)
    local late = luna.clock() - deadline
    assert.is_true(late >= 0 and late < 30, late)
    assert.equal("timeout", guest:run({ deadline = deadline }).kind)
    assert.is_true(luna.clock() - deadline - late < 30)
  end)

  it("ends at what comes first, it or the timeout", function()
    local guest = helper.guest { source = SPIN }
    local begin = luna.clock()
    assert.equal("timeout", guest:run({ deadline = begin + 60, timeout = 0.02 }).kind)
    assert.equal("timeout", guest:run({ deadline = begin + 0.04, timeout = 60 }).kind)
    assert.is_true(luna.clock() - begin < 50)
  end)

  it("does not begin where it has passed", function()
    local guest = helper.guest { source = "hlt" }
    assert.equal("timeout", guest:run({ deadline = 0 }).kind)
    assert.equal("timeout", guest:run({ deadline = luna.clock() }).kind)
    assert.equal("hlt", guest:run({ deadline = math.huge, timeout = math.huge }).kind)
  end)

  it("is seconds from 0 on", function()
    local guest = helper.guest { source = "hlt" }
    for _, value in ipairs { -1, "1", {}, 0 / 0 } do
      helper.raises("cpu:run: deadline: seconds from 0 on expected, got ",
        function() guest.cpu:run { deadline = value } end)
      helper.raises("cpu:run: timeout: seconds from 0 on expected, got ",
        function() guest.cpu:run { timeout = value } end)
    end
  end)
end)

helper.kvm("the time of a vCPU", function()
  it("is that in the guest", function()
    local guest = helper.guest { mode = "user", source = SPIN }
    assert.equal("timeout", guest:run({ timeout = 0.01 }).kind)
    assert.same({ 0, 0 }, { guest.cpu.exec_time, guest.cpu.idle_time })
    guest.cpu:account(true)
    local exec = 0
    helper.within(function() -- others may take their part of the 50 ms before it begins
      local begin, before = luna.clock(), exec
      assert.equal("timeout", guest:run({ timeout = 0.05 }).kind)
      local took = (luna.clock() - begin) * 1e9
      exec = guest.cpu.exec_time
      assert.is_true(exec - before <= took, exec)
      return exec - before > (helper.stressed and 0 or 0.8 * 0.05e9)
    end)
    guest.cpu:account(false)
    assert.equal("timeout", guest:run({ timeout = 0.01 }).kind)
    assert.equal(exec, guest.cpu.exec_time)
    assert.equal(0, guest.cpu.idle_time)
    guest.cpu:account(true)
    assert.equal(0, guest.cpu.exec_time)
  end)

  it("does not have that of handlers", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, { write = function()
      local begin = luna.clock()
      while luna.clock() - begin < 0.1 do end
    end })
    guest.cpu:account(true)
    local begin = luna.clock()
    guest:stops "hlt"
    assert.is_true(guest.cpu.exec_time <= (luna.clock() - begin - 0.1) * 1e9)
  end)

  it("is counted or not", function()
    local guest = helper.guest { source = "hlt" }
    helper.raises("cpu:account: true or false expected, got nil",
      function() guest.cpu:account() end)
    guest.cpu:close()
    helper.raises("attempt to use a closed vcpu", function() guest.cpu:account(true) end)
  end)
end)
