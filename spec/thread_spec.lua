-- SPDX-License-Identifier: MIT
-- Several vCPUs at once: vm:run, starting and stopping, pauses, parking, errors, and what may be
-- done with a vCPU whose thread has it.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex, raises, contains = luna.hex, helper.raises, helper.contains

local COUNT = "mov cx, 20\n again: out dx, al\n inc al\n loop again\n hlt"
local SPIN = "jmp $"

-- A VM with a vCPU for each source, in real mode, with its number in dx and its code at 0x1000 * n.
local function machine(...)
  local vm, ram, cpus = helper.keep(luna.vm()), helper.keep(luna.buffer "1M"), {}
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  for i, source in ipairs { ... } do
    ram:write(0x1000 * i, helper.code(source, 16, 0x1000 * i))
    cpus[i] = helper.keep(vm:vcpu { rip = 0x1000 * i })
    cpus[i].rdx = i
  end
  return vm, cpus, ram
end

-- vm:run with a watchdog.
local function run(vm, options)
  options = options or {}
  local guard = options.timeout == nil
  if guard then options.timeout = 10 end
  local exit, cpu, code = vm:run(options)
  if guard and exit and exit.kind == "timeout" then error("the guests do not stop", 2) end
  return exit, cpu, code
end

helper.kvm("vm:run", function()
  it("runs all vCPUs and answers their exits in one Lua thread", function()
    local vm, cpus = machine(COUNT, COUNT, COUNT)
    local seen = { {}, {}, {} }
    for i = 1, 3 do
      vm:pio(i, 1, { write = function(_, _, _, value)
        seen[i][#seen[i] + 1] = value
      end })
      cpus[i]:on("hlt", function() return "park" end)
    end
    local exit, cpu = run(vm)
    assert.equal("parked", exit.kind)
    helper.contains("parked (vcpu 0 parked, halted with interrupts off", tostring(exit))
    assert.is_nil(cpu)
    local expected = {}
    for i = 0, 19 do expected[#expected + 1] = i end
    for i = 1, 3 do
      assert.same(expected, seen[i])
      assert.is_true(cpus[i].parked)
      assert.is_false(cpus[i].started)
    end
  end)

  it("returns an exit that nobody takes, with its vCPU, and stops the others", function()
    local vm, cpus = machine(SPIN, "mov ax, 7\n hlt", SPIN)
    local exit, cpu = run(vm)
    assert.equal("hlt", exit.kind)
    assert.equal(cpus[2], cpu)
    assert.equal("0x7", hex(cpu.rax))
    for i = 1, 3 do assert.is_false(cpus[i].started) end
    assert.equal("0x1000", hex(cpus[1].rip))
  end)

  it("answers reads", function()
    local vm, cpus = machine("in al, dx\n out 0x20, al\n hlt")
    vm:pio(1, 1, { read = function() return 0x5a end })
    local got
    vm:pio(0x20, 1, { write = function(_, _, _, value) got = value end })
    assert.equal("hlt", run(vm).kind)
    assert.equal(0x5a, got)
    assert.equal("0x5a", hex(cpus[1].rax))
  end)

  it("gives an open exit again until it is answered", function()
    local vm, cpus = machine("in al, dx\n hlt")
    for _ = 1, 2 do
      local exit, cpu = run(vm)
      assert.equal("pio", exit.kind)
      assert.equal(cpus[1], cpu)
    end
    cpus[1]:answer(9)
    assert.equal("hlt", run(vm).kind)
    assert.equal("0x9", hex(cpus[1].rax))
  end)

  it("loses no exit that waited while another one ended the run", function()
    local vm, cpus = machine("hlt\n hlt", "hlt\n hlt", "hlt\n hlt")
    local counts = { 0, 0, 0 }
    for _ = 1, 6 do
      local _, cpu = run(vm)
      for i = 1, 3 do
        if cpus[i] == cpu then
          counts[i] = counts[i] + 1
          if counts[i] == 2 then cpu:on("hlt", function() return "park" end) end
          if counts[i] == 2 then cpu.parked = true end
        end
      end
    end
    assert.same({ 2, 2, 2 }, counts)
    for i = 1, 3 do assert.equal(hex(0x1000 * i + 2), hex(cpus[i].rip)) end
  end)

  it("ends with its time", function()
    local vm = machine(SPIN, SPIN)
    local begin = luna.clock()
    local exit, cpu = run(vm, { timeout = 0.05 })
    assert.equal("timeout", exit.kind)
    assert.is_nil(cpu)
    assert.is_true(luna.clock() - begin >= 0.05)
    assert.equal("timeout", vm:run({ deadline = luna.clock() + 0.01 }).kind)
    assert.equal("timeout", vm:run({ timeout = 0 }).kind)
  end)

  it("is stopped by handlers", function()
    local vm, cpus = machine(SPIN, "out dx, al\n hlt")
    vm:pio(2, 1, { write = function() vm:stop "enough" end })
    local exit, cpu = run(vm)
    assert.equal("stopped", exit.kind)
    assert.equal("enough", exit.value)
    assert.is_nil(cpu)
    assert.equal("hlt", run(vm).kind) -- the write is done
    vm:pio(3, 1, { write = function() cpus[2]:stop(5) end })
    cpus[2].rip, cpus[2].rdx = 0x2000, 3
    exit, cpu = run(vm)
    assert.equal("stopped", exit.kind)
    assert.equal(5, exit.value)
    assert.equal(cpus[2], cpu)
  end)

  it("raises what a handler raises, once, when all are stopped", function()
    local vm, cpus = machine(SPIN, "in al, dx\n hlt", SPIN)
    local broken, device = true, {}
    function device.read()
      if broken then error "no value yet" end
      return 3
    end
    vm:pio(2, 1, device)
    local ok, message = pcall(run, vm)
    assert.is_false(ok)
    contains("no value yet", message)
    contains("stack traceback:", message)
    local _, count = message:gsub("stack traceback:", "")
    assert.equal(1, count)
    for i = 1, 3 do assert.is_false(cpus[i].started) end
    broken = false
    assert.equal("hlt", run(vm).kind) -- the read was delivered again
    assert.equal("0x3", hex(cpus[2].rax))
  end)

  it("lets handlers change maps, other vCPUs and themselves", function()
    local vm, cpus, ram = machine("mov al, [0xf000]\n out dx, al\n hlt", SPIN)
    assert(vm.default:unmap(0xf000, 0x1000))
    local got
    vm:pio(1, 1, { write = function(_, _, _, value) got = value end })
    ram:u8(0xf000, 0x77)
    cpus[1]:on("fault", function(_, exit)
      cpus[2]:pause()
      cpus[2].rbx = 4
      cpus[2]:resume()
      assert(vm:map_space(0, ram, exit.gpa, 0x1000, "rwx", { offset = exit.gpa }))
      return "retry"
    end)
    assert.equal("hlt", run(vm).kind)
    assert.equal(0x77, got)
    assert.equal("0x4", hex(cpus[2].rbx))
  end)

  it("yields from handlers, and nobody else runs the VM meanwhile", function()
    local vm = machine("in al, dx\n hlt")
    vm:pio(1, 1, { read = function() return coroutine.yield "asked" end })
    local routine = coroutine.wrap(function() return run(vm) end)
    assert.equal("asked", routine())
    raises("vm:run: this VM is running", function() vm:run() end)
    raises("vm:poll: this VM is running", function() vm:poll() end)
    assert.equal("hlt", routine(1).kind)
  end)

  it("unparks from another vCPU's handler", function()
    local vm, cpus = machine("hlt\n mov ax, 5\n hlt", "l: out dx, al\n jmp l")
    cpus[1]:on("hlt", function() return "park" end)
    vm:pio(2, 1, { write = function()
      if cpus[1].parked then
        cpus[1]:on("hlt", nil)
        cpus[1]:unpark()
      end
    end })
    local exit, cpu = run(vm)
    assert.equal("hlt", exit.kind)
    assert.equal(cpus[1], cpu)
    assert.equal("0x5", hex(cpu.rax))
  end)

  it("says why KVM refuses to run a vCPU", function()
    local vm, cpus = machine(SPIN, SPIN)
    cpus[2].cr0 = 0x80000000 -- paging without protection
    for _ = 1, 2 do
      helper.refused("system", "cannot run vCPU 1: KVM refuses its system registers", run(vm))
      for i = 1, 2 do assert.is_false(cpus[i].started) end
    end
    assert(cpus[2]:start())
    local exit, message, code
    repeat exit, message, code = vm:poll() until exit or message
    helper.refused("system", "cannot run vCPU 1", exit, message, code)
    assert.is_false(cpus[2].started)
    cpus[2].cr0 = 0x10
    assert.equal("timeout", vm:run({ timeout = 0.02 }).kind)
  end)

  it("refuses nonsense", function()
    local vm = machine(SPIN)
    raises("vm:run: unknown option 'time'", function() vm:run { time = 1 } end)
    raises("vm:run: timeout: seconds from 0 on expected, got x", function()
      vm:run { timeout = "x" }
    end)
    vm:close()
    raises("attempt to use a closed vm", function() vm:run() end)
  end)
end)

helper.kvm("a started vCPU", function()
  it("is not to be touched unless it is paused", function()
    local _, cpus = machine(SPIN)
    local cpu = cpus[1]
    assert.is_false(cpu.started)
    assert(cpu:start())
    assert.is_true(cpu.started)
    for _, touch in ipairs {
      function() return cpu.rax end, function() cpu.rax = 1 end, function() cpu:run() end,
      function() cpu:inject "#GP" end, function() cpu:set_space(0) end,
    } do
      local ok, message = pcall(touch)
      assert.is_false(ok)
      contains("vCPU 0", message)
      contains("started", message)
    end
    assert.matches("^vcpu 0 %(started, %d+ exits%)$", tostring(cpu))
    raises("it is started already", function() cpu:start() end)
    assert(cpu:pause())
    cpu.rbx = 3
    assert.equal("0x3", hex(cpu.rbx))
    assert(cpu:resume())
    raises("it is not paused", function() cpu:resume() end)
    assert(cpu:join())
    assert.equal("0x3", hex(cpu.rbx))
    raises("cannot stop vCPU 0: it is not started", function() cpu:join() end)
  end)

  it("is interrupted into the queue", function()
    local vm, cpus = machine(SPIN)
    vm:timer(0.01, function() cpus[1]:interrupt() end)
    local exit, cpu = run(vm)
    assert.equal("interrupted", exit.kind)
    assert.equal(cpus[1], cpu)
  end)

  it("stops with its VM, with itself, and when it is collected", function()
    local vm, cpus = machine(SPIN, SPIN)
    assert(vm:start())
    cpus[1]:close()
    vm:close()
    do
      local other, ram = luna.vm(), luna.buffer "64K"
      other.default:map(ram, 0)
      ram:write(0x1000, helper.code(SPIN, 16))
      assert(assert(other:vcpu { rip = 0x1000 }):start())
    end
    collectgarbage()
    collectgarbage()
    assert.equal(0, luna.live().vcpu)
  end)

  it("lives on while its VM does, without a variable", function()
    local vm = machine()
    local ram = helper.keep(luna.buffer "64K")
    assert(vm:map_space(0, ram, 0x200000, ram.size, "rwx"))
    assert(assert(vm:vcpu { mode = "reset" }):start())
    collectgarbage()
    collectgarbage()
    assert.equal(1, luna.live().vcpu)
    vm:stop()
    collectgarbage()
    collectgarbage()
    assert.equal(1, luna.live().vcpu)
    vm:close()
    assert.equal(0, luna.live().vcpu)
  end)

  -- Lua 5.4 has no fork to call; spec/core/run/test_thread.c does this for both.
  if helper.jit then
    it("tells a child of the process that its threads are not there", function()
      local output = helper.child [[
        local ffi, luna = require "ffi", require "lunavisor"
        ffi.cdef "int fork(void); int waitpid(int, int *, int); void _exit(int);"
        local vm, ram = luna.vm(), luna.buffer "64K"
        vm.default:map(ram, 0)
        ram:write(0x1000, luna.asm("jmp $", { bits = 16 }))
        local cpu = vm:vcpu { rip = 0x1000 }
        assert(cpu:start())
        local child = ffi.C.fork()
        if child == 0 then
          for _, name in ipairs { "poll", "run", "pause", "stop", "poll" } do
            local ok, message = pcall(function() assert(vm[name](vm)) end)
            print(ok, message:match "forked from it", message:match "lua/lunavisor/")
          end
          io.stdout:flush()
          ffi.C._exit(0)
        end
        ffi.C.waitpid(child, nil, 0)
        cpu:join()
        print "joined"
      ]]
      assert.equal(("false\tforked from it\tnil\n"):rep(5) .. "joined", output)
    end)
  end
end)

helper.kvm("Ctrl-C", function()
  for _, seconds in ipairs { "0.1", "2.2" } do
    it("raises out of vm:run after " .. seconds .. " seconds", function()
      local output = helper.interrupt([[
        local luna = require "lunavisor"
        local vm, ram = luna.vm(), luna.buffer "64K"
        vm.default:map(ram, 0)
        ram:write(0x1000, luna.asm("out 0x10, al\n jmp $", { bits = 16 }))
        local one, other = vm:vcpu { rip = 0x1000 }, vm:vcpu { rip = 0x1002 }
        vm:pio(0x10, 1, { write = function()
          io.stdout:write "running\n"
          io.stdout:flush()
        end })
        local ok, message = pcall(vm.run, vm)
        print(ok, message:match "interrupted!", one.started, other.started)
        print(vm:run({ timeout = 0.05 }).kind)
      ]], seconds)
      assert.equal("running\nfalse\tinterrupted!\tfalse\tfalse\ntimeout", output)
    end)
  end
end)
