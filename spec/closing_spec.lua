-- SPDX-License-Identifier: MIT
-- What is closed, stopped or changed from handlers, devices and timers while a run is under way.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex = luna.hex

local OUT = "out 0x10, al\n in al, 0x11\n hlt"

local function machine(sources)
  local vm, ram, cpus = helper.keep(luna.vm()), helper.keep(luna.buffer "1M"), {}
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  for i, source in ipairs(sources) do
    ram:write(0x1000 * i, helper.code(source, 16, 0x1000 * i))
    cpus[i] = helper.keep(vm:vcpu { rip = 0x1000 * i, rsp = 0x1000 * i })
  end
  return vm, cpus
end

-- Runs until it is done: the machine may have no time for the guest before a timeout.
local function run_until(done, run)
  local exit, second
  repeat
    exit, second = run()
  until not exit or exit.kind ~= "timeout" or done()
  return exit, second
end

-- The ways to run, the vCPU that has the exits first.
local ways = {
  ["cpu:run"] = function(_, cpu, done)
    return run_until(done, function() return cpu:run { timeout = 0.3 } end)
  end,
  ["vm:run"] = function(vm, _, done)
    return run_until(done, function() return vm:run { timeout = 0.3 } end)
  end,
  ["vm:poll"] = function(vm, _, done)
    assert(vm:start())
    local limit = math.huge
    while luna.clock() < limit do
      if limit == math.huge and done() then limit = luna.clock() + 0.5 end
      local exit, cpu, code = vm:poll()
      if exit or cpu then return exit, cpu, code end
      if not vm[1] or not next(vm.started) then return end
    end
    return nil
  end,
}

-- What ends the run when the vCPU is closed.
local ends = { ["cpu:run"] = "stopped", ["vm:run"] = "timeout", ["vm:poll"] = "nil" }

for name, run in pairs(ways) do
  helper.kvm("in " .. name, function()
    -- Runs with a pio device, an hlt handler or a timer that does `act`.
    local function each(act, check)
      for _, place in ipairs { "write", "read", "handler", "timer" } do
        local vm, cpus = machine { OUT, "jmp $" }
        local cpu = cpus[1]
        local done = false
        local function now(where)
          if where == place then
            done = true
            act(vm, cpu)
          end
        end
        vm:pio(0x10, 1, { write = function() now "write" end })
        vm:pio(0x11, 1, { read = function()
          now "read"
          return 1
        end })
        cpu:on("hlt", function()
          now "handler"
          return place == "timer" and "continue" or "stop"
        end)
        if place == "timer" then
          vm.default:write(0x1004, helper.code("jmp $", 16, 0x1004))
          vm:timer(0.01, function() now "timer" end)
        end
        local ok, exit, second = pcall(run, vm, cpu, function() return done end)
        assert.is_true(done, place)
        check(place, ok, exit, second, cpu, vm)
        helper.clean()
      end
    end

    it("the vCPU can be closed, and stopped too", function()
      each(function(_, cpu)
        cpu:close()
      end, function(place, ok, exit)
        assert.is_true(ok, tostring(exit))
        assert.equal(ends[name], exit and exit.kind or "nil", place)
      end)
      each(function(vm, cpu)
        cpu:stop(5)
        cpu:close()
        vm:stop(6)
      end, function(place, ok, exit)
        assert.is_true(ok, tostring(exit))
        assert.same({ "stopped", name == "cpu:run" and 5 or 6 }, { exit.kind, exit.value }, place)
        assert.equal("stopped", tostring(exit))
      end)
    end)

    it("the VM can be closed", function()
      each(function(vm)
        vm:close()
      end, function(place, ok, exit)
        assert.is_true(ok, tostring(exit))
        assert.equal("stopped", exit and exit.kind, place)
      end)
    end)

    it("the other vCPU can be closed, made and started", function()
      each(function(vm)
        vm.vcpus[2]:close()
        local new = helper.keep(vm:vcpu { rip = 0x2000 })
        assert.equal(1, new.id)
        if name ~= "cpu:run" then assert(new:start()) end
      end, function(place, ok, exit, _, cpu)
        assert.is_true(ok, tostring(exit))
        assert.equal(place == "timer" and (name == "vm:poll" and "nil" or "timeout") or "hlt",
          exit and exit.kind or "nil")
        if place ~= "timer" then assert.equal("0x5", hex(cpu.rip % 0x1000)) end
      end)
    end)

    it("traps can be closed and added", function()
      each(function(vm)
        for _, trap in pairs(vm.traps) do trap:close() end
        vm:pio(0x10, 8, { read = function() return 2 end })
      end, function(place, ok, exit)
        if place ~= "timer" then
          assert.is_true(ok, tostring(exit))
          assert.equal("hlt", exit.kind)
        end
      end)
    end)
  end)
end
