-- SPDX-License-Identifier: MIT
-- Handlers: those that yield, what the handler of an exit kind may say, and answers without one.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains, fails, hex = helper.contains, helper.fails, luna.hex

helper.kvm("a handler that yields", function()
  local function suspended(source, device)
    local guest = helper.guest { source = source or "in al, 0x10\n hlt" }
    guest.vm:pio(0x10, 1, device or { read = function() return coroutine.yield "asked" end })
    local routine = coroutine.create(function() return guest:run() end)
    local ok, what = coroutine.resume(routine)
    assert.is_true(ok, what)
    assert.equal("asked", what)
    return guest, routine
  end

  it("goes on when its coroutine is resumed", function()
    local guest, routine = suspended()
    local ok, exit = coroutine.resume(routine, 0x66)
    assert.is_true(ok, exit)
    assert.equal("hlt", exit.kind)
    assert.equal("0x66", hex(guest.cpu.rax))
    assert.equal("dead", coroutine.status(routine))
  end)

  it("keeps the vCPU from being run by others", function()
    local guest, routine = suspended()
    helper.raises("its coroutine is suspended", function() guest.cpu:run() end)
    assert.is_true(coroutine.resume(routine, 1))
    guest.cpu.rip = 0x1000
    local again = coroutine.wrap(function() return guest:run() end)
    assert.equal("asked", again())
    assert.equal("hlt", again(2).kind)
  end)

  it("lets the vCPU go when its coroutine is collected", function()
    local guest, routine = suspended()
    assert.equal("suspended", coroutine.status(routine))
    routine = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    local ok, what = coroutine.resume(coroutine.create(function() return guest:run() end))
    assert.is_true(ok, what)
    assert.equal("asked", what) -- the access is still open
  end)

  it("yields from a handler of an exit kind too", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    guest.cpu:on("pio", function(_, exit) return coroutine.yield(exit.port) end)
    local run = coroutine.wrap(function() return guest:run() end)
    assert.equal(0x10, run())
    assert.equal("hlt", run(0x31).kind)
    assert.equal("0x31", hex(guest.cpu.rax))
  end)

  it("serves two vCPUs in turns", function()
    local order, runs, guests = {}, {}, {}
    for i = 1, 2 do
      guests[i] = helper.guest { source = "mov cx, 3\n again: out 0x10, al\n loop again\n hlt" }
      guests[i].vm:pio(0x10, 1, { write = function()
        order[#order + 1] = i
        coroutine.yield()
      end })
      runs[i] = coroutine.wrap(function() return guests[i]:run() end)
    end
    for _ = 1, 3 do
      assert.is_nil(runs[1]())
      assert.is_nil(runs[2]())
    end
    assert.equal("hlt", runs[1]().kind)
    assert.equal("hlt", runs[2]().kind)
    assert.same({ 1, 2, 1, 2, 1, 2 }, order)
  end)
end)

helper.kvm("cpu:on", function()
  local function reader(verdict)
    local guest = helper.guest { mode = "long", source = "mov eax, [0x200000]\n hlt" }
    local seen = {}
    guest.cpu:on("fault", function(cpu, exit)
      assert.equal(guest.cpu, cpu)
      seen[#seen + 1] = exit.gpa
      if type(verdict) == "function" then return verdict(guest) end
      return verdict
    end)
    return guest, seen
  end

  local function writer(verdict)
    local guest = helper.guest { mode = "long", source = "mov [0x200000], eax\n hlt" }
    guest.cpu:on("fault", function() return verdict end)
    return guest
  end

  for _, verdict in ipairs { "stop", "nothing" } do
    it("ends the run with the open exit on " .. verdict, function()
      local guest, seen = reader(verdict == "stop" and "stop" or nil)
      assert.equal(0x200000, guest:stops("fault").gpa)
      assert.same({ 0x200000 }, seen)
      guest.cpu:answer(3)
      guest:stops "hlt"
      assert.equal("0x3", hex(guest.cpu.rax))
    end)
  end

  it("gives a value to a read", function()
    local guest = reader(0xdeadbeef)
    guest:stops "hlt"
    assert.equal("0xdeadbeef", hex(guest.cpu.rax))
  end)

  it("gives a u64 to a read", function()
    local guest = reader(luna.u64 "0x87654321")
    guest:stops "hlt"
    assert.equal("0x87654321", hex(guest.cpu.rax))
  end)

  it("gives all ones to a read on skip", function()
    reader("skip"):stops "hlt"
    local guest = reader "skip"
    guest:stops "hlt"
    assert.equal("0xffffffff", hex(guest.cpu.rax))
  end)

  for _, verdict in ipairs { "continue", "skip" } do
    it("drops a write on " .. verdict, function()
      writer(verdict):stops "hlt"
    end)
  end

  it("does the access again on retry", function()
    local memory = helper.keep(luna.buffer "4K")
    memory:u32(0, 0x600d)
    local guest, seen = reader(function(guest)
      assert(guest.vm:map_space(0, memory, 0, 0x200000, 0x1000, "rwx"))
      return "retry"
    end)
    guest:stops "hlt"
    assert.equal("0x600d", hex(guest.cpu.rax))
    assert.equal(1, #seen)
  end)

  it("refuses retry where nothing was mapped", function()
    contains("cannot retry the access to gpa 0x200000: no region of space 0 allows it",
      fails((reader "retry")))
  end)

  it("refuses retry of a port access", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.cpu:on("pio", function() return "retry" end)
    contains("\"retry\": that is for a fault exit", fails(guest))
  end)

  it("refuses continue for a read", function()
    contains('a handler answered fault (read of 4 bytes at gpa 0x200000, which no region allows) '
      .. 'at rip 0x', fails((reader "continue")))
    contains('a read needs a value, "skip" or "retry"', fails((reader "continue")))
  end)

  it("refuses continue for an execution", function()
    local guest = helper.guest { mode = "long", source = "jmp 0x200000" }
    guest.cpu:on("fault", function() return "continue" end)
    contains('map memory there and say "retry"', fails(guest))
    guest.cpu:on("fault", function() return "skip" end)
    contains("cannot answer the fetch at gpa 0x200000", fails(guest))
  end)

  it("refuses a value that does not fit", function()
    contains("the fault handler answered a read of 4 bytes", fails((reader(2 ^ 32))))
    contains("the fault handler answered a read of 4 bytes", fails((reader(-1))))
  end)

  for _, verdict in ipairs { "go on", "", true, false } do
    it(("refuses the verdict %q"):format(tostring(verdict)), function()
      contains(('a handler answered hlt at rip 0x1001 with %s: nil, "stop", "continue", "skip", '
        .. '"retry", "refuse", "park" or, for a read, a value expected'):format(tostring(verdict)),
        (function()
          local guest = helper.guest { source = "hlt" }
          guest.cpu:on("hlt", function() return verdict end)
          return fails(guest)
        end)())
    end)
  end

  it("refuses a value for a write and for what is no access", function()
    contains("or, for a read, a value expected", fails((writer(5))))
    local guest = helper.guest { source = "hlt" }
    guest.cpu:on("hlt", function() return 5 end)
    contains("a handler answered hlt at rip 0x1001 with 5", fails(guest))
  end)

  it("goes on after hlt on continue", function()
    local guest = helper.guest { source = "hlt\n hlt\n mov cl, 4\n out 0x10, al" }
    local count = 0
    guest.cpu:on("hlt", function()
      count = count + 1
      return "continue"
    end)
    guest:stops "pio"
    assert.equal(2, count)
    assert.equal("0x4", hex(guest.cpu.rcx))
  end)

  it("goes on after an exception when rip was moved", function()
    local guest = helper.guest { mode = "user", source = "ud2\n mov cl, 4\n out 0x10, al" }
    guest.cpu:on("exception", function(cpu, exit)
      cpu.rip = exit.rip + 2
      return "continue"
    end)
    guest:stops "pio"
    assert.equal("0x4", hex(guest.cpu.rcx))
  end)

  it("goes on after an interrupt on continue, until the handler has enough", function()
    local guest = helper.guest { source = "again: jmp again" }
    local count = 0
    guest.cpu:on("interrupted", function(cpu)
      count = count + 1
      if count == 3 then return "stop" end
      cpu:interrupt()
      return "continue"
    end)
    guest.cpu:interrupt()
    guest:stops "interrupted"
    assert.equal(3, count)
  end)

  it("comes after the devices", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x20, al\n hlt" }
    local device, ports = helper.recorder(), {}
    guest.vm:pio(0x10, 1, device)
    guest.cpu:on("pio", function(_, exit)
      ports[#ports + 1] = exit.port
      return "continue"
    end)
    guest:stops "hlt"
    assert.same({ 0x20 }, ports)
    assert.equal(1, #device.log)
  end)

  it("replaces the handler, and takes it away for nil", function()
    local guest = helper.guest { source = "hlt\n hlt\n hlt" }
    guest.cpu:on("hlt", function() error "the first" end)
    guest.cpu:on("hlt", function(cpu)
      cpu:stop "second"
      return "continue"
    end)
    assert.equal("second", guest:stops("stopped").value)
    guest.cpu:on("hlt", nil)
    guest:stops "hlt"
  end)

  it("stops on cpu:stop whatever the handler says", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.cpu:on("pio", function(cpu)
      cpu:stop(1)
      return "continue"
    end)
    assert.equal(1, guest:stops("stopped").value)
    guest:stops "hlt"
  end)

  it("stops on cpu:stop although the handler ends the run anyway", function()
    local guest = helper.guest { source = "hlt\n out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, helper.recorder())
    guest.cpu:on("hlt", function(cpu) cpu:stop(2) end)
    assert.equal(2, guest:stops("stopped").value)
    guest.cpu:on("hlt", nil)
    guest:stops "hlt"
  end)

  it("refuses unknown kinds and what cannot be called", function()
    local guest = helper.guest { source = "hlt" }
    helper.raises('cpu:on: no exit kind "halt"; the kinds are debug, eoi, exception, fail_entry, ',
      function() guest.cpu:on("halt", function() end) end)
    helper.raises("cpu:on: no exit kind number", function() guest.cpu:on(5, function() end) end)
    helper.raises('cpu:on: handler: a function expected, got "park"; write function() return "park"'
      .. " end for this answer", function() guest.cpu:on("hlt", "park") end)
  end)
end)

helper.kvm("cpu:answer", function()
  it("needs an open exit", function()
    local guest = helper.guest { source = "hlt" }
    helper.raises("vCPU 0 has no open exit to answer", function() guest.cpu:answer(1) end)
    guest:stops "hlt"
    helper.raises("vCPU 0 has no open exit to answer", function() guest.cpu:answer() end)
    helper.raises("vCPU 0 has no open exit to answer", function() guest.cpu:retry() end)
  end)

  it("needs a value for a read, of its size", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    guest:stops "pio"
    helper.raises("cpu:answer: the guest reads: a value expected",
      function() guest.cpu:answer() end)
    local ok, message = pcall(guest.cpu.answer, guest.cpu, 256)
    assert.is_false(ok)
    contains("cpu:answer: the script answered a read of 1 byte", message)
    guest.cpu:answer(255)
    guest:stops "hlt"
    assert.equal("0xff", hex(guest.cpu.rax))
  end)

  it("lets go of a write", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest:stops "pio"
    guest.cpu:answer()
    guest:stops "hlt"
  end)
end)
