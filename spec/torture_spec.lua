-- SPDX-License-Identifier: MIT
-- Four vCPUs that are started, paused, interrupted, reset, stopped and destroyed at random, while
-- their exits are answered and timers come. LUNA_TORTURE_SECONDS (10) says how long, LUNA_SEED
-- repeats a failure.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local VCPUS, CODE, SLOT = 4, 0x1000, 0x100
local SECONDS = tonumber(os.getenv "LUNA_TORTURE_SECONDS" or "") or 10

-- Writes ax to its port, for ever; bx counts the writes that are done.
local SOURCE = "again: out dx, ax\n inc ax\n inc bx\n jmp again"

-- A generator of its own: the engines' differ.
local function generator(seed)
  local state = seed % 2147483646 + 1
  return function(limit)
    state = state * 16807 % 2147483647
    return state % limit + 1
  end
end

local function make_vcpu(world, port)
  local cpu = assert(world.vm:vcpu { rip = CODE })
  cpu.rdx = port
  world.cpus[port], world.expected[port], world.pauses[port] = cpu, 0, 0
end

-- The guest counts up from what it was set to: a value that is left out was lost, one that comes
-- again was seen twice.
local function check_write(world, port, value)
  if value ~= world.expected[port] % 65536 then
    error(("vCPU at port %d: write %d expected, got %d"):format(port, world.expected[port], value))
  end
  world.expected[port] = world.expected[port] + 1
  world.writes = world.writes + 1
end

local function make_world()
  local world = { cpus = {}, expected = {}, pauses = {}, writes = 0, interrupts = 0, beats = 0 }
  world.vm = helper.keep(luna.vm())
  local ram = helper.keep(luna.buffer "64K")
  assert(world.vm:map_space(0, ram, 0, ram.size, "rwx"))
  ram:write(CODE, helper.code(SOURCE, 16, CODE))
  for port = SLOT, SLOT + 2 * (VCPUS - 1), 2 do
    world.vm:pio(port, 2, { write = function(_, _, _, value) check_write(world, port, value) end })
    make_vcpu(world, port)
  end
  world.vm:timer(0.001, function() world.beats = world.beats + 1 end, { period = 0.001 })
  return world
end

local function resume_all(world, port)
  for _ = 1, world.pauses[port] do assert(world.cpus[port]:resume()) end
  world.pauses[port] = 0
end

-- What the guest counted is what the device saw; a write that waits for its answer is not done.
local function check_count(world, port)
  local cpu = world.cpus[port]
  local count, seen = luna.u64.tonumber(cpu.rbx) % 65536, world.expected[port] % 65536
  local behind = (seen - count) % 65536
  assert(behind <= 1, ("the device saw %d writes, the guest did %d"):format(seen, count))
end

local acts = {
  start = function(world, port)
    if not world.cpus[port].started then assert(world.cpus[port]:start()) end
  end,
  join = function(world, port)
    if not world.cpus[port].started then return end
    assert(world.cpus[port]:join())
    world.pauses[port] = 0
    check_count(world, port)
  end,
  pause = function(world, port)
    if not world.cpus[port].started then return end
    assert(world.cpus[port]:pause())
    world.pauses[port] = world.pauses[port] + 1
    check_count(world, port)
  end,
  resume = resume_all,
  interrupt = function(world, port)
    world.cpus[port]:interrupt()
  end,
  reset = function(world, port)
    local cpu = world.cpus[port]
    if cpu.started then assert(cpu:join()) end
    world.pauses[port] = 0
    local exit = assert(cpu:run { timeout = 0 }) -- is a write open?
    if exit.kind == "pio" then
      check_write(world, port, exit.value)
      cpu:answer()
      assert(cpu:run { timeout = 0 }) -- finishes it
    end
    cpu.rip, cpu.rax, cpu.rbx = CODE, 100, 100
    world.expected[port] = 100
  end,
  destroy = function(world, port)
    world.cpus[port]:close()
    make_vcpu(world, port)
  end,
  map = function(world)
    assert(world.vm.default:protect(0x8000, 0x1000, "r-x"))
    assert(world.vm.default:protect(0x8000, 0x1000, "rwx"))
  end,
}

local names = {}
for name in pairs(acts) do names[#names + 1] = name end
table.sort(names)
names[#names + 1], names[#names + 2], names[#names + 3] = "start", "resume", "start"

-- Answers what waits; an interrupt, whose vCPU has stopped, lets it go on.
local function answer(world)
  local exit, cpu, code = world.vm:poll()
  if not exit then
    assert(not cpu, tostring(cpu) .. " " .. tostring(code))
    return
  end
  assert(exit.kind == "interrupted", tostring(exit))
  world.interrupts = world.interrupts + 1
  for port, one in pairs(world.cpus) do
    if one == cpu then world.pauses[port] = 0 end
  end
  assert(cpu:start())
end

local function torture(world, random)
  local finish, done, count = luna.clock() + SECONDS, {}, 0
  while luna.clock() < finish do
    local name, port = names[random(#names)], SLOT + 2 * (random(VCPUS) - 1)
    done[name] = true
    count = count + 1
    acts[name](world, port)
    for _ = 1, random(8) do answer(world) end
  end
  return done, count
end

helper.kvm("four vCPUs", function()
  it("stand whatever is done to them", function()
    local seed = tonumber(os.getenv "LUNA_SEED" or "") or os.time()
    local world = make_world()
    local ok, done, count = xpcall(torture, debug.traceback, world, generator(seed))
    if not ok then error(("LUNA_SEED=%d: %s"):format(seed, done), 0) end
    assert.is_true(count > 0)
    for name in pairs(acts) do -- of so many, chance leaves none out
      if count >= 20 * #names then assert.truthy(done[name], name .. " was not tried") end
    end
    assert.is_true(world.writes > 0 and world.beats > 0 and world.interrupts > 0)
    world.vm:stop()
    for port = SLOT, SLOT + 2 * (VCPUS - 1), 2 do check_count(world, port) end
    for _, cpu in pairs(world.cpus) do cpu:close() end
  end)
end)
