-- SPDX-License-Identifier: MIT
-- vm:poll and vm:fd: an event loop owns the loop.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local function writer(mode)
  local guest = helper.guest { source = mode or "mov cx, 30\n l: out 0x10, al\n loop l\n hlt" }
  local count = 0
  guest.vm:pio(0x10, 1, { write = function() count = count + 1 end })
  return guest, function() return count end
end

local function poll_until(vm, done)
  local finish = luna.clock() + 60
  repeat
    local exit, cpu, code = vm:poll()
    if exit or cpu then return exit, cpu, code end
    if luna.clock() > finish then error "nothing comes of it" end
  until done and done()
end

helper.kvm("vm:poll", function()
  it("answers what waits, and returns what nobody takes", function()
    local guest, count = writer()
    assert.is_nil(guest.vm:poll())
    assert(guest.vm:start())
    local exit, cpu = poll_until(guest.vm)
    assert.equal("hlt", exit.kind)
    assert.equal(guest.cpu, cpu)
    assert.equal(30, count())
    assert.is_false(cpu.started)
    assert.is_nil(guest.vm:poll())
    cpu.rip = 0x1000
    assert(cpu:start())
    assert.equal("hlt", poll_until(guest.vm).kind)
    assert.equal(60, count())
  end)

  it("does not stay when exits come without end", function()
    local guest, count = writer "l: out 0x10, al\n jmp l"
    assert(guest.vm:start())
    poll_until(guest.vm, function() return count() > 200 end)
    guest.vm:stop()
    assert.is_false(guest.cpu.started)
  end)

  it("returns what a handler's stop asks for", function()
    local guest = writer "l: out 0x11, al\n jmp l"
    guest.vm:pio(0x11, 1, { write = function() guest.vm:stop(3) end })
    assert(guest.vm:start())
    local exit = poll_until(guest.vm)
    assert.equal("stopped", exit.kind)
    assert.equal(3, exit.value)
    assert.is_false(guest.cpu.started)
  end)

  it("raises what a handler raises, and stops all", function()
    local guest = writer "out 0x11, al\n hlt"
    guest.vm:pio(0x11, 1, { write = function() error "broken" end })
    assert(guest.vm:start())
    local ok, message = pcall(poll_until, guest.vm)
    assert.is_false(ok)
    helper.contains("broken", message)
    assert.is_false(guest.cpu.started)
  end)
end)

local uv = require "spec.support.luv"

helper.kvm("vm:fd", function()
  it("is a number that stays, and is closed with the VM", function()
    local before = helper.descriptors()
    local vm = helper.keep(luna.vm())
    local fd = vm:fd()
    assert.equal("number", type(fd))
    assert.equal(fd, vm:fd())
    vm:close()
    assert.equal(before, helper.descriptors())
  end)

  -- Lets luv call vm:poll while the descriptor is readable, until something surfaces; and another
  -- callback of luv's meanwhile.
  local function loop(vm, meanwhile)
    if not uv then pending "luv is not installed" end
    local poll, guard, surfaced = uv.new_poll(vm:fd()), uv.new_timer(), nil
    local other = uv.new_timer()
    if meanwhile then other:start(20, 0, meanwhile) end
    guard:start(10000, 0, function() uv.stop() end)
    poll:start("r", function()
      surfaced = vm:poll()
      if surfaced then uv.stop() end
    end)
    uv.run()
    poll:close()
    guard:close()
    other:close()
    uv.run "nowait"
    return surfaced
  end

  it("wakes luv for exits", function()
    local guest, count = writer()
    guest.vm:fd()
    assert(guest.vm:start())
    assert.equal("hlt", loop(guest.vm).kind)
    assert.equal(30, count())
  end)

  it("wakes luv for an exit that waited before the descriptor was made", function()
    local guest = writer "hlt"
    assert(guest.vm:start())
    local finish = luna.clock() + 0.02
    repeat until luna.clock() > finish
    assert.equal("hlt", loop(guest.vm).kind)
  end)

  it("wakes luv for stops from its other callbacks", function()
    local guest = writer "l: jmp l"
    assert(guest.vm:start())
    local exit = loop(guest.vm, function()
      assert.is_true(guest.vm:stop "hangup")
      guest.vm:timer(100, function() end)
    end)
    assert.same({ "stopped", "hangup" }, { exit.kind, exit.value })
    assert(guest.vm:start())
    exit = loop(guest.vm, function() guest.cpu:stop "one" end)
    assert.same({ "stopped", "one" }, { exit.kind, exit.value })
    assert.is_false(guest.cpu.started)
  end)

  it("wakes luv for timers", function()
    local vm, count = helper.keep(luna.vm()), 0
    vm:timer(0.005, function()
      count = count + 1
      if count == 3 then vm:stop "three" end
    end, { period = 0.005 })
    local exit = loop(vm)
    assert.equal("stopped", exit.kind)
    assert.equal("three", exit.value)
  end)
end)
