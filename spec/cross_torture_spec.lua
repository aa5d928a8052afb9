-- SPDX-License-Identifier: MIT
-- Subjects at random on running vCPUs: interrupts, breakpoints, moves, saved states, collected
-- writes, maps and errors of devices, under vm:run, cpu:run and cpu:step. LUNA_TORTURE_SECONDS
-- says for how long, LUNA_SEED repeats a run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"

local seconds = tonumber(os.getenv "LUNA_TORTURE_SECONDS" or "") or 3
local seed = tonumber(os.getenv "LUNA_SEED" or "") or os.time()
local has_split = (luna.probe().features or {}).split_irqchip == 1

local SOURCE = "sti\n again: out 0x10, al\n in al, 0x11\n out 0x12, al\n out 0x13, al\n"
  .. "inc al\n mov [0x700], al\n nop\n jmp again"
local POINT = 0x100d -- the nop

local random

local function machine()
  local chip = random(2) == 1 and has_split and "split" or "none"
  local guest = irq.guest(SOURCE, { vm = chip == "split" and { irqchip = chip } or nil })
  local vm, cpus = guest.vm, { guest.cpu }
  assert(assert(vm:space()):map(guest.ram, 0))
  guest.ram:u16(2 * 4, 0x4000 + 2 * 32)
  for i = 2, random(3) do
    cpus[i] = helper.keep(vm:vcpu { rip = 0x1000, rsp = 0x8000 + 0x1000 * i })
    if chip == "split" then irq.enable_apic(cpus[i]) end
  end
  vm:pio(0x10, 1, { write = function()
    if random(500) == 1 then error("a device", 0) end
  end })
  vm:pio(0x11, 1, { read = function() return random(256) - 1 end })
  vm:coalesce(vm:pio(0x12, 1, { write = function() end }))
  vm:pio(0x13, 1, { memory = helper.keep(luna.buffer "4K") })
  for _, cpu in ipairs(cpus) do
    cpu:on("debug", function() return "continue" end)
    cpu:account(random(2) == 1)
  end
  return vm, cpus
end

-- What is done to a vCPU that runs, and to one that is kept out of the guest.
local running = {
  function(cpu) cpu:interrupt() end,
  function(cpu) cpu:irq(31 + random(220)) end,
  function(cpu) cpu:nmi() end,
  function(cpu) cpu.vm:stop() end,
  function(cpu)
    return cpu.exec_time, cpu.idle_time, cpu.space, cpu.exits, tostring(cpu), cpu.irq_waiting
  end,
  function(cpu)
    local trap = cpu.vm:pio(0x80, 1, { write = function() end })
    cpu.vm:coalesce(trap)
    trap:close()
  end,
}

local paused = {
  function(cpu) cpu:set_space(random(2) - 1) end,
  function(cpu)
    local ok, state = pcall(cpu.state, cpu) -- not with an exit open
    if ok then assert(cpu:set_state(state)) end
  end,
  function(cpu, points)
    if points[cpu] then points[cpu]:close() end
    points[cpu] = not points[cpu] and cpu:breakpoint(POINT) or nil
  end,
}

local function disturb(cpu, points)
  local number = random(#running + #paused + 2)
  if number <= #running then
    running[number](cpu)
  elseif number > #running + #paused then
    local buffer = luna.buffer "4K"
    cpu.vm.default:map(buffer, 0x200000)
    cpu.vm.default:unmap(0x200000, buffer.size)
    buffer:close()
  elseif cpu.started then
    cpu:pause()
    paused[number - #running](cpu, points)
    cpu:resume()
  end
end

-- The exits that these guests can have.
local expected = {
  timeout = true, stopped = true, interrupted = true, limit = true, debug = true,
}

local function go(fn, ...)
  local ok, exit, message = pcall(fn, ...)
  if not ok then
    helper.contains("a device", tostring(exit))
  elseif not expected[assert(exit, message).kind] then
    error("unexpected: " .. tostring(exit))
  end
end

local function round()
  local vm, cpus = machine()
  local points = {}
  vm:timer(0.001, function() disturb(cpus[random(#cpus)], points) end, { period = 0.001 })
  for _ = 1, 4 do
    go(vm.run, vm, { timeout = 0.05 })
    local cpu = cpus[random(#cpus)]
    go(cpu.step, cpu, random(20), { timeout = 0.05 })
    go(cpu.run, cpu, { timeout = 0.01, max_exits = random(30) })
  end
  if random(3) == 1 then vm:start() end
end

helper.kvm("everything that a running vCPU can meet", function()
  it("leaves it in order", function()
    local state = seed % 2147483646 + 1
    function random(most)
      state = state * 16807 % 2147483647
      return state % most + 1
    end
    local finish = luna.clock() + seconds
    while luna.clock() < finish do
      local ok, message = pcall(round)
      if not ok then error(("LUNA_SEED=%d: %s"):format(seed, tostring(message)), 0) end
      helper.clean()
    end
  end)
end)
