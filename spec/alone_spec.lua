-- SPDX-License-Identifier: MIT
-- vm:run of a single vCPU, which needs no thread: that it has none, that it gets one when another
-- vCPU is started, and that scripts see no difference to one of several.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, contains = helper.raises, helper.contains

local SPIN = "again: jmp again"
local COUNT = "l: in al, 0x10\n out 0x11, al\n jmp l" -- without end

-- How many threads this process has.
local function threads()
  local file = assert(io.open "/proc/self/status")
  local count = tonumber(file:read("*a"):match "Threads:%s*(%d+)")
  file:close()
  return count
end

local function run(guest, options)
  options = options or {}
  options.timeout = options.timeout or 10
  return guest.vm:run(options)
end

-- The guest with a device at port 0x10.
local function with(source, device)
  local guest = helper.guest { source = source }
  guest.vm:pio(0x10, 1, device)
  return guest
end

helper.kvm("vm:run of a single vCPU", function()
  -- How many threads there are at each access, first in cpu:run, then in vm:run; KVM has one of its
  -- own for a VM.
  local function compare(guest)
    local seen
    guest.vm:pio(0x20, 1, { write = function() seen[threads()] = true end })
    guest.ram:write(0x1000, helper.code("mov cx, 50\n l: out 0x20, al\n loop l\n hlt", 16, 0x1000))
    local function counts(runs)
      seen = {}
      guest.cpu.rip = 0x1000
      local exit, cpu = runs:run { timeout = 10 }
      assert.equal("hlt", exit.kind)
      assert.equal(guest.cpu, exit.cpu)
      return seen, cpu
    end
    local expected = counts(guest.cpu)
    local found, cpu = counts(guest.vm)
    assert.same(expected, found)
    assert.equal(guest.cpu, cpu)
    assert.is_false(cpu.started)
  end

  it("makes no thread", function()
    compare(helper.guest { source = "hlt" })
  end)

  it("makes none where the others are parked, or gone", function()
    local guest = helper.guest { source = "hlt" }
    local second = helper.spinner(guest)
    assert.equal("hlt", run(guest).kind)
    second.parked = true
    compare(guest)
    second:close()
    guest.vm.traps[next(guest.vm.traps)]:close()
    compare(guest)
  end)

  it("makes them when a device starts another one", function()
    local guest, second, before, during, got
    local writes = 0
    guest = with("in al, 0x10\n out 0x13, al\n l: jmp l", { read = function()
      before = threads()
      assert.is_true(second:start())
      during = threads()
      return 0x5a
    end })
    local function note()
      if got and writes >= 20 then guest.vm:stop "both" end
    end
    guest.vm:pio(0x12, 1, { write = function() writes = writes + 1 note() end })
    guest.vm:pio(0x13, 1, { write = function(_, _, _, value) got = value note() end })
    second = helper.spinner(guest)
    second.parked = true
    guest.ram:write(0x8000, helper.code("l: out 0x12, al\n jmp l", 16, 0x8000))
    assert.equal("both", run(guest).value)
    assert.equal(before + 2, during)
    assert.equal(0x5a, got)
    assert.equal(before, threads())
    assert.is_false(guest.cpu.started)
    assert.is_false(second.started)
  end)

  it("makes them when a timer lets another one go, and the first stays in its loop", function()
    local guest = helper.guest { source = SPIN }
    local second = helper.spinner(guest)
    guest.ram:write(0x8000, "\244") -- hlt
    second.parked = true
    guest.vm:timer(0.01, function() second:unpark() end)
    local exit, cpu = run(guest)
    assert.equal("hlt", exit.kind)
    assert.equal(second, cpu)
  end)

  it("leaves a vCPU to its thread that was started before", function()
    local guest, count, during = nil, 0, nil
    guest = with("l: out 0x10, al\n jmp l", { write = function()
      count = count + 1
      if count == 20 then
        during = threads()
        guest.vm:stop(count)
      end
    end })
    assert(guest.cpu:start())
    assert.equal(20, run(guest).value)
    assert.equal(during - 1, threads())
  end)
end)

-- The same once alone and once next to another vCPU, for which each has to look the same.
local function both(name, test)
  it(name .. ", alone", function() test(function() end) end)
  it(name .. ", in company", function() test(helper.spinner) end)
end

helper.kvm("a vCPU under vm:run", function()
  both("is started, and free while its exit is dealt with", function(join)
    local guest
    guest = with("in al, 0x10\n hlt", { read = function()
      assert.is_true(guest.cpu.started)
      guest.cpu.rbx = 7
      raises("cpu:run: vCPU 0 is started", function() guest.cpu:run() end)
      raises("vm:run: this VM is running", function() guest.vm:run() end)
      raises("vm:poll: this VM is running", function() guest.vm:poll() end)
      raises("it is started already", function() guest.cpu:start() end)
      return 3
    end })
    join(guest)
    assert.equal("hlt", run(guest).kind)
    assert.equal("0x7", luna.hex(guest.cpu.rbx))
    assert.equal("0x3", luna.hex(guest.cpu.rax))
  end)

  both("is to be paused where a timer wants to read it", function(join)
    local guest = helper.guest { source = SPIN }
    join(guest)
    local rip
    guest.vm:timer(0.01, function()
      raises("vCPU 0 is started", function() return guest.cpu.rip end)
      assert(guest.cpu:pause())
      rip = guest.cpu.rip
      assert(guest.cpu:resume())
      guest.vm:stop()
    end)
    assert.equal("stopped", run(guest).kind)
    assert.equal("0x1000", luna.hex(rip))
  end)

  both("stays paused until somebody resumes it", function(join)
    local guest, count = nil, 0
    guest = with(COUNT, { read = function()
      count = count + 1
      if count == 2 then
        guest.cpu:pause()
        guest.vm:timer(0.02, function()
          assert.equal(2, count)
          assert(guest.cpu:resume())
        end)
      end
      if count == 5 then guest.cpu:stop "five" end
      return count
    end })
    guest.vm:pio(0x11, 1, { write = function(_, _, _, value) assert.equal(count, value) end })
    join(guest)
    local exit, cpu = run(guest)
    assert.same({ "stopped", "five" }, { exit.kind, exit.value })
    assert.equal(guest.cpu, cpu)
    assert.equal(cpu.rip, exit.rip)
  end)

  both("ends by stops of timers and handlers", function(join)
    local guest = with(COUNT, { read = function() return 1 end })
    join(guest)
    guest.cpu:on("pio", function(cpu) cpu:stop "handler" return "continue" end)
    local exit, cpu = run(guest)
    assert.same({ "stopped", "handler" }, { exit.kind, exit.value })
    assert.equal(guest.cpu, cpu)
    guest.cpu:on("pio", function() guest.vm:stop "vm" return "continue" end)
    exit, cpu = run(guest)
    assert.same({ "stopped", "vm" }, { exit.kind, exit.value })
    assert.is_nil(cpu)
    assert.is_nil(exit.cpu)
    guest.cpu:on("pio", function() return "continue" end)
    guest.vm:timer(0.01, function() guest.cpu:stop "timer" end)
    exit, cpu = run(guest)
    assert.same({ "stopped", "timer" }, { exit.kind, exit.value })
    assert.equal(guest.cpu, cpu)
    assert.is_true(exit.rip ~= nil)
    guest.vm:timer(0.01, function() guest.vm:stop "end" end)
    exit, cpu = run(guest)
    assert.same({ "stopped", "end" }, { exit.kind, exit.value })
    assert.is_nil(cpu)
    guest.vm:timer(0.01, function() guest.cpu:interrupt() end)
    exit, cpu = run(guest)
    assert.equal("interrupted", exit.kind)
    assert.equal(guest.cpu, cpu)
  end)

  both("ends with its time, which no handler is asked for, and has timers", function(join)
    local guest, count = helper.guest { source = SPIN }, 0
    join(guest)
    guest.cpu:on("timeout", function() error "not an exit of the vCPU" end)
    local timer = guest.vm:timer(0.005, function() count = count + 1 end, { period = 0.005 })
    local begin = luna.clock()
    local exit, cpu = run(guest, { timeout = 0.3 })
    assert.is_true(luna.clock() - begin >= 0.3)
    assert.same({ "timeout" }, { exit.kind })
    assert.is_nil(cpu)
    assert.equal(guest.cpu, exit.vcpus[1].cpu)
    assert.is_true(count > 10 and count <= 60, count)
    assert.is_true(math.abs(count + timer.missed - 60) < 20)
    timer:close()
    assert.equal("timeout", run(guest, { timeout = 0 }).kind)
  end)

  both("counts its exits, and no look at signals or timers", function(join)
    local guest = with("mov cx, 10\n l: out 0x10, al\n loop l\n m: jmp m",
      { write = function() end })
    join(guest)
    local timer = guest.vm:timer(0.01, function() end, { period = 0.01 })
    assert.equal("timeout", run(guest, { timeout = 0.3 }).kind)
    assert.equal(10, guest.cpu.exits)
    local last = guest.cpu:last_exits()
    assert.same({ 10, "pio" }, { #last, last[10].kind })
    timer:close()
  end)

  both("is parked and goes on by a timer", function(join)
    local guest = helper.guest { source = "hlt\n mov ax, 5\n hlt" }
    join(guest)
    guest.cpu:on("hlt", function(cpu)
      cpu:on("hlt", nil)
      guest.vm:timer(0.01, function() assert(cpu:unpark()) end)
      return "park"
    end)
    local exit, cpu = run(guest)
    assert.equal("hlt", exit.kind)
    assert.equal(guest.cpu, cpu)
    assert.equal("0x5", luna.hex(cpu.rax))
  end)

  both("may be joined, and started again, by its own device", function(join)
    local guest, reads = nil, 0
    guest = with("in al, 0x10\n hlt", { read = function()
      reads = reads + 1
      if reads == 1 then
        assert(guest.cpu:join())
        assert(guest.cpu:start())
      end
      return reads
    end })
    join(guest)
    local exit, cpu = run(guest)
    assert.equal("hlt", exit.kind)
    assert.equal(guest.cpu, cpu)
    assert.equal(2, reads) -- the exit came again
    assert.equal("0x2", luna.hex(cpu.rax))
  end)

  both("yields, and ends by what is asked for meanwhile", function(join)
    local guest = with(COUNT, { read = function() return coroutine.yield "asked" end })
    join(guest)
    local routine = coroutine.wrap(function() return run(guest) end)
    assert.equal("asked", routine())
    raises("vm:run: this VM is running", function() guest.vm:run() end)
    assert.is_true(guest.vm:stop "later")
    local exit, cpu = routine(4)
    assert.same({ "stopped", "later" }, { exit.kind, exit.value })
    assert.is_nil(cpu)
    exit = run(guest)
    assert.same({ "pio", 0x11, 4 }, { exit.kind, exit.port, exit.value })
  end)

  for _, how in ipairs { "run", "poll" } do
    both("goes on by vm:" .. how .. " after a run that was dropped", function(join)
      local yields = true
      local guest = with("in al, 0x10\n hlt", { read = function()
        if yields then coroutine.yield() end
        return 9
      end })
      join(guest)
      local routine = coroutine.create(function() return run(guest) end)
      assert(coroutine.resume(routine))
      routine, yields = nil, false -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      local exit, cpu
      if how == "run" then
        exit, cpu = run(guest)
      else
        helper.within(function()
          exit, cpu = guest.vm:poll()
          return exit
        end)
      end
      assert.equal("hlt", exit.kind)
      assert.equal(guest.cpu, cpu)
      assert.equal("0x9", luna.hex(cpu.rax))
      guest.vm:stop()
    end)
  end

  both("raises what is no answer, and asks again in the next run", function(join)
    local value = "x"
    local guest = with("in al, 0x10\n hlt", { read = function() return value end })
    join(guest)
    for shown, bad in pairs { x = "x", ["0x100"] = 256, ["1.5"] = 1.5, ["false"] = false } do
      value = bad
      local ok, message = pcall(run, guest)
      assert.is_false(ok)
      contains("the device answered a read of 1 byte at offset 0x0 with " .. shown, message)
      assert.is_false(guest.cpu.started)
    end
    value = 255
    assert.equal("hlt", run(guest).kind)
    assert.equal("0xff", luna.hex(guest.cpu.rax))
  end)

  both("says where a device has failed", function(join)
    local guest = with("in al, 0x10\n hlt", { name = "clock", read = function() error "no" end })
    join(guest)
    local ok, message = pcall(run, guest)
    assert.is_false(ok)
    contains("in the device at port 0x10 (clock, given at ", message)
  end)

  it("that its handler closes is the end of a run", function()
    local guest
    guest = with(COUNT, { read = function() guest.cpu:close() return 1 end })
    assert.equal("parked", run(guest).kind)
    guest = with(COUNT, { read = function() guest.vm:close() return 1 end })
    assert.equal("stopped", run(guest).kind)
    assert.equal(0, luna.live().vcpu)
  end)

  it("that was recorded is the same", function()
    local guest = with("in al, 0x10\n hlt", { read = function() return 7 end })
    local path = helper.file ""
    local recording = assert(guest.vm:record(path))
    assert.equal("hlt", run(guest).kind)
    recording:close()
    local file = assert(io.open(path))
    local text = file:read "*a"
    file:close()
    contains("hlt", text)
    contains("port 0x10", text)
  end)
end)

-- Lua 5.4 has no call that a signal interrupts for good.
if helper.jit then
  helper.kvm("the time of a run", function()
    it("that has ended interrupts nothing afterwards", function()
      local ffi = require "ffi"
      ffi.cdef "int poll(void *, unsigned long, int);"
      local guest = with("out 0x10, al\n in al, 0x12\n hlt", { write = function() end })
      assert.equal("pio", run(guest, { timeout = 0.1 }).kind) -- stays open
      assert.equal(0, ffi.C.poll(nil, 0, 300))
    end)
  end)
end

helper.kvm("Ctrl-C", function()
  local sources = { ["in a loop"] = "jmp $",
    ["at its device all the time"] = "l: out 0x11, al\n jmp l" }
  for name, source in pairs(sources) do
    it("raises out of vm:run of a single vCPU that is " .. name, function()
      local output = helper.interrupt(([[
        local luna = require "lunavisor"
        local vm, ram = luna.vm(), luna.buffer "64K"
        vm.default:map(ram, 0)
        ram:write(0x1000, luna.asm("out 0x10, al\n %s", { bits = 16 }))
        local cpu = vm:vcpu { rip = 0x1000 }
        vm:pio(0x10, 1, { write = function()
          io.stdout:write "running\n"
          io.stdout:flush()
        end })
        vm:pio(0x11, 1, { write = function() end })
        local ok, message = pcall(vm.run, vm)
        print(ok, message:match "interrupted!", cpu.started)
        print(vm:run({ timeout = 0.05 }).kind)
      ]]):format(source:gsub("\n", "\\n")), 0.5)
      assert.equal("running\nfalse\tinterrupted!\tfalse\ntimeout", output)
    end)
  end
end)
