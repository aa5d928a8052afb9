-- SPDX-License-Identifier: MIT
-- vm:timer in every way of running.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, contains = helper.raises, helper.contains

-- The ways to run a VM with one spinning vCPU for a while.
local ways = {
  ["cpu:run"] = function(vm, cpu, options)
    local exit, message, code = cpu:run(options)
    return exit, message, code, vm
  end,
  ["vm:run"] = function(vm, _, options) return vm:run(options) end,
  ["vm:poll"] = function(vm, cpu, options)
    if not cpu.started then assert(cpu:start()) end
    local finish = luna.clock() + options.timeout
    repeat
      local exit = vm:poll()
      if exit then return exit end
    until luna.clock() > finish
    cpu:join()
    return { kind = "timeout" }
  end,
}

for name, run in pairs(ways) do
  helper.kvm("a timer under " .. name, function()
    local function spinning(source)
      local guest = helper.guest { source = source or "jmp $" }
      return guest.vm, guest.cpu
    end

    it("comes once, at its moment", function()
      local vm, cpu = spinning()
      local begin, moments = luna.clock(), {}
      vm:timer(0.02, function(self)
        moments[#moments + 1] = luna.clock() - begin
        assert.equal("timer (closed)", tostring(self))
        cpu:stop()
      end)
      assert.equal("stopped", run(vm, cpu, { timeout = 60 }).kind)
      assert.is_true(moments[1] >= 0.02 and moments[1] < 30, moments[1])
      assert.equal("timeout", run(vm, cpu, { timeout = 0.1 }).kind)
      assert.equal(1, #moments)
    end)

    it("tells how long it takes still", function()
      local vm = spinning()
      local late = vm:timer(0.001, function() end)
      assert.matches("^timer %(in 9%d%.%d%d%d s%)$", tostring(vm:timer(99, function() end)))
      os.execute "sleep 0.01"
      assert.equal("timer (in 0.000 s)", tostring(late))
    end)

    it("comes again and again", function()
      local vm, cpu = spinning()
      local count = 0
      local timer = vm:timer(0.01, function(self)
        count = count + 1
        if count == 5 then
          self:close()
          cpu:stop "five"
        end
      end, { period = 0.005 })
      local exit = run(vm, cpu, { timeout = 60 })
      assert.equal("stopped", exit.kind)
      assert.equal("five", exit.value)
      assert.equal(5, count)
      timer:close()
    end)

    it("raises", function()
      local vm, cpu = spinning()
      vm:timer(0.005, function() error "the timer is broken" end)
      local ok, message = pcall(run, vm, cpu, { timeout = 60 })
      assert.is_false(ok)
      contains("the timer is broken", message)
      contains("stack traceback:", message)
      assert.is_false(cpu.started)
      assert.equal("timeout", run(vm, cpu, { timeout = 0.02 }).kind)
    end)

    it("may be made by a handler and by another timer", function()
      local vm, cpu = spinning "out 0x10, al\n jmp $"
      local order = {}
      vm:pio(0x10, 1, { write = function()
        vm:timer(0.005, function()
          order[#order + 1] = "first"
          vm:timer(0.005, function()
            order[#order + 1] = "second"
            cpu:stop()
          end)
        end)
      end })
      assert.equal("stopped", run(vm, cpu, { timeout = 60 }).kind)
      assert.same({ "first", "second" }, order)
    end)

    it("that was closed does not come", function()
      local vm, cpu = spinning()
      vm:timer(0.01, function() error "closed before" end):close()
      local other
      vm:timer(0.005, function() other:close() end) -- due before the other, also where both are
      other = vm:timer(0.01, function() error "closed by the other" end)
      assert.equal("timeout", run(vm, cpu, { timeout = 0.04 }).kind)
    end)
  end)
end

helper.kvm("a timer", function()
  it("keeps its beat over a pause, and counts what it missed", function()
    local guest = helper.guest { source = "jmp $" }
    local moments, begin = {}, luna.clock()
    local timer = guest.vm:timer(0.02, function()
      moments[#moments + 1] = luna.clock() - begin
      if #moments == 1 then -- a handler that takes long
        local finish = luna.clock() + 0.07
        repeat until luna.clock() > finish
      end
    end, { period = 0.02 })
    local made = luna.clock() - begin
    helper.within(function()
      assert.equal("timeout", guest.cpu:run({ timeout = 0.2 }).kind)
      return timer.missed >= 2 and #moments >= 2
    end)
    local beats, last = #moments + timer.missed, moments[#moments]
    assert.is_true(beats >= (last - made) / 0.02 - 2 and beats <= last / 0.02, beats)
  end)

  it("wakes a VM whose vCPUs are all parked", function()
    local guest = helper.guest { source = "hlt\n mov ax, 8\n hlt" }
    guest.cpu:on("hlt", function()
      guest.vm:timer(0.02, function()
        guest.cpu:on("hlt", nil)
        guest.cpu:unpark()
      end)
      return "park"
    end)
    local exit, cpu = guest.vm:run { timeout = 60 }
    assert.equal("hlt", exit.kind)
    assert.equal(guest.cpu, cpu)
    assert.equal("0x8", luna.hex(cpu.rax))
  end)

  it("may be as far away as it likes", function()
    local guest = helper.guest { source = "jmp $" }
    guest.vm:fd()
    guest.vm:timer(math.huge, print, { period = math.huge })
    assert.equal("timeout", guest.vm:run({ timeout = 0.01 }).kind)
    assert.equal("timeout", guest.cpu:run({ timeout = 0.01 }).kind)
  end)

  it("costs no more among thousands, and all come in their order", function()
    local guest = helper.guest { source = "jmp $" }
    local came, timers, seed, MANY = {}, {}, 1, 4000
    local begin = os.clock() -- of this process alone
    for i = 1, MANY do
      seed = seed * 16807 % 2147483647
      timers[i] = guest.vm:timer(0.001 + seed % 1000 / 1e6, function(self)
        came[#came + 1] = self
        if #came == MANY / 2 then guest.cpu:stop() end
      end)
    end
    for i = 1, MANY, 2 do timers[i]:close() end
    guest:stops "stopped"
    local took = os.clock() - begin
    assert.equal("timeout", guest.cpu:run({ timeout = 0.01 }).kind)
    assert.equal(MANY / 2, #came)
    for i = 2, #came do
      local one, next = came[i - 1], came[i]
      assert.is_true(one.moment < next.moment
        or (one.moment == next.moment and one.serial < next.serial))
    end
    -- Looking at all for each took a hundred times as long.
    assert.is_true(helper.stressed or took < 1.5, took)
  end)

  it("goes with its VM", function()
    local vm = luna.vm()
    local timer = vm:timer(0.001, function() error "too late" end)
    vm:close()
    assert.equal("timer (closed)", tostring(timer))
    timer:close()
    raises("attempt to use a closed vm", function() vm:timer(1, print) end)
  end)

  it("refuses nonsense", function()
    local vm = helper.keep(luna.vm())
    raises("vm:timer: delay: seconds from 0 on expected, got -1", function()
      vm:timer(-1, print)
    end)
    raises("vm:timer: a function expected, got nil", function() vm:timer(1) end)
    raises("vm:timer: period: seconds from 1e-06 on expected, got 0", function()
      vm:timer(1, print, { period = 0 })
    end)
    raises("vm:timer: unknown option 'every'", function() vm:timer(1, print, { every = 1 }) end)
  end)
end)
