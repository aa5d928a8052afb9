-- SPDX-License-Identifier: MIT
-- What ends runs from outside of handlers, and from devices of cpu:run; and what an exit says when
-- no vCPU has ended the run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local SPIN = "out 0x10, al\n again: jmp again"

-- What vm:poll brings within ten seconds.
local function poll(vm)
  local t = luna.clock()
  repeat
    local exit, cpu = vm:poll()
    if exit then return exit, cpu end
  until luna.clock() - t > 60
end

local function check(value, exit)
  assert.same({ "stopped", value }, { exit.kind, exit.value })
end

helper.kvm("vm:stop", function()
  it("of a device ends cpu:run, cpu:step and cpu:trace", function()
    for _, how in ipairs { "run", "step", "trace" } do
      local guest = helper.guest { source = SPIN }
      guest.vm:pio(0x10, 1, { write = function() assert.is_true(guest.vm:stop "enough") end })
      local exit
      if how == "run" then exit = guest.cpu:run { timeout = 60 }
      elseif how == "step" then exit = guest.cpu:step(5)
      else exit = guest.cpu:trace(function() end, { count = 5 }) end
      check("enough", exit)
      assert.equal(guest.cpu, exit.cpu)
      guest:stops("timeout", { timeout = 0.01 })
    end
  end)

  it("of a timer ends cpu:run", function()
    local guest = helper.guest { source = SPIN }
    guest.vm:pio(0x10, 1, { write = function() end })
    guest.vm:timer(0.01, function() guest.vm:stop(3) end)
    check(3, guest.cpu:run { timeout = 60 })
  end)

  it("ends a run that is suspended, when it goes on", function()
    local guest = helper.guest { source = SPIN }
    guest.vm:pio(0x10, 1, { write = function() coroutine.yield() end })
    local run = coroutine.wrap(function() return guest.cpu:run { timeout = 60 } end)
    run()
    guest.vm:stop "later"
    check("later", run())
  end)

  it("from elsewhere is what vm:poll brings", function()
    local guest = helper.guest { source = "again: jmp again" }
    guest.vm:start()
    assert.is_nil(guest.vm:poll())
    assert.is_true(guest.vm:stop "hangup")
    assert.is_false(guest.cpu.started)
    check("hangup", (guest.vm:poll()))
    assert.is_nil(guest.vm:poll())
    guest.vm:start()
    guest.cpu:stop "one"
    local exit, cpu = guest.vm:poll()
    check("one", exit)
    assert.equal(guest.cpu, cpu)
    assert.is_nil(guest.vm:poll())
  end)

  it("from elsewhere is over when a vCPU is started again", function()
    local guest = helper.guest { source = SPIN }
    for _, start in ipairs { function() guest.vm:start() end, function() guest.cpu:start() end } do
      guest.vm:start()
      guest.vm:stop "old"
      start()
      assert.equal("pio", poll(guest.vm).kind)
    end
    guest.vm:stop "old"
    assert.equal("pio", guest.vm:run({ timeout = 60 }).kind)
    assert.is_nil(guest.vm:poll())
  end)
end)

helper.kvm("cpu:stop", function()
  it("is an error where nothing would end", function()
    local guest = helper.guest { source = SPIN }
    helper.raises("cpu:stop: this vCPU neither runs nor is started",
      function() guest.cpu:stop(1) end)
    assert.equal("pio", guest:stops("pio").kind)
  end)
end)

helper.kvm("an exit that no vCPU has made", function()
  it("tells where each stands", function()
    local guest = helper.guest { source = "hlt\n again: jmp again" }
    local second = helper.keep(guest.vm:vcpu { rip = 0x1001 })
    guest.cpu:on("hlt", function() return "park" end)
    local exit
    helper.within(function()
      exit = guest.vm:run { timeout = 0.1 }
      assert.equal("timeout", exit.kind)
      return exit.vcpus[1].parked
    end)
    assert.same({ guest.cpu, second }, { exit.vcpus[1].cpu, exit.vcpus[2].cpu })
    helper.contains("timeout (vcpu 0 parked, halted with interrupts off, so that no interrupt "
      .. "wakes it, at rip 0x1001; vcpu 1 at rip 0x1001)", tostring(exit))
    assert.same({ true, true, false, false }, { exit.vcpus[1].parked, exit.vcpus[1].stuck,
      exit.vcpus[2].parked, exit.vcpus[2].stuck })
    second:close()
    guest.cpu.rflags = 0x202
    exit = guest.vm:run { timeout = 60 }
    helper.contains("parked (vcpu 0 parked, halted, at rip 0x1001)", tostring(exit))
  end)

  if ((luna.probe().features or {}).split_irqchip or 0) ~= 0 then
    it("tells who waits inside KVM, and for what", function()
      local vm = helper.keep(luna.vm { irqchip = "split" })
      local ram = helper.keep(luna.buffer "64K")
      vm.default:map(ram, 0)
      ram:write(0x1000, "\xfa\xf4\xfb\xf4") -- cli; hlt; sti; hlt
      local dead = vm:vcpu { rip = 0x1000 }
      local asleep = vm:vcpu { rip = 0x1002 }
      vm:vcpu { wait = true }
      local exit
      helper.within(function()
        exit = vm:run { timeout = 0.2 }
        return asleep.mp_state == "halted" and dead.mp_state == "halted"
      end)
      helper.contains("timeout (vcpu 0 halted with interrupts off, so that no interrupt wakes it, "
        .. "at rip 0x1002; vcpu 1 halted, at rip 0x1004; vcpu 2 waits for INIT, at rip ",
        tostring(exit))
      exit = dead:run { timeout = 0.05 }
      assert.is_true(exit.stuck)
      helper.contains("timeout (halted with interrupts off, so that no interrupt wakes it) at rip "
        .. "0x1002", tostring(exit))
      exit = asleep:run { timeout = 0.05 }
      assert.is_nil(exit.stuck)
      helper.contains("timeout at rip 0x1004", tostring(exit))
    end)
  end
end)
