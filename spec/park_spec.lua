-- SPDX-License-Identifier: MIT
-- vCPUs that a handler has parked, and what lets them go on.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

-- What vm:poll brings within ten seconds.
local function poll(vm)
  local t = luna.clock()
  repeat
    local exit, cpu = vm:poll()
    if exit then return exit, cpu end
  until luna.clock() - t > 60
end

helper.kvm("a parked vCPU", function()
  local guest

  before_each(function()
    guest = helper.guest { source = "hlt\n in al, 0x60\n out 0x10, al" }
    guest.cpu:on("hlt", function() return "park" end)
  end)

  it("is started, and is not parked then", function()
    assert.equal("parked", guest.vm:run({ timeout = 60 }).kind)
    assert.is_true(guest.cpu.parked)
    assert.is_true(guest.cpu:start())
    assert.is_false(guest.cpu.parked)
    local exit, cpu = poll(guest.vm)
    assert.same({ "pio", 0x60 }, { exit.kind, exit.port })
    assert.equal(guest.cpu, cpu)
  end)

  it("is let go by cpu:start where its thread waits", function()
    guest.vm:start()
    local t = luna.clock()
    repeat assert.is_nil(guest.vm:poll()) until guest.cpu.parked or luna.clock() - t > 60
    assert.is_true(guest.cpu.started)
    assert.is_true(guest.cpu:start())
    assert.is_false(guest.cpu.parked)
    assert.equal("pio", poll(guest.vm).kind)
  end)

  it("may say in a handler that it is not parked", function()
    assert.equal("parked", guest.vm:run({ timeout = 60 }).kind)
    assert.is_true(guest.cpu:start())
    guest.cpu:on("pio", function(cpu, exit)
      assert.is_true(cpu:unpark())
      if exit.access == "w" then return "stop" end
      assert.equal("r", exit.access)
      return 7
    end)
    local exit = poll(guest.vm)
    assert.same({ 0x10, 7 }, { exit.port, exit.value })
  end)

  it("stays parked where it cannot be started", function()
    assert.equal("parked", guest.vm:run({ timeout = 60 }).kind)
    guest.vm:pio(0x60, 1, { read = function()
      helper.raises("cpu:run is running this vCPU", function() guest.cpu:start() end)
      return 0
    end })
    assert.equal("pio", guest.cpu:run({ timeout = 60 }).kind)
    assert.is_true(guest.cpu.parked)
  end)
end)
