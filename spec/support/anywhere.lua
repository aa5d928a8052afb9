-- SPDX-License-Identifier: MIT A program that lets an error come at each instruction of each call
-- (by a count hook), and with the argument "memory" lets each allocation fail (Lua 5.4, by
-- alloc.c). After every one the VM, the vCPU and the buffer have to be as before, and do their
-- work. Prints how many errors there were.

local luna = require "lunavisor"

if rawget(_G, "jit") then jit.off() end -- hooks do not come in compiled code
local STEP = tonumber(os.getenv "LUNA_ANYWHERE_STEP" or "") or 1

local fail
if arg[1] == "memory" then fail = assert(package.loadlib(arg[2], "luaopen_alloc"))() end

local vm, ram = luna.vm { irqchip = "split" }, luna.buffer "64K"
vm.default:map(ram, 0)
ram:write(0x1000, "\xe6\x10\xe6\x10\xeb\xfa") -- again: out 0x10, al (twice); jmp again
local cpu = vm:vcpu { rip = 0x1000, rsp = 0x8000 }
local other = luna.vm()
local bell = other:eventfd { port = 1, size = 1 }
local device = { read = function() return 0 end, write = function() end }
vm:pio(0x10, 1, { write = function()
  if cpu.rip ~= nil then cpu:stop(1) end
end })

local function close(object)
  if object then object:close() end
end

-- Each is done again and again: what it makes it takes back.
local calls = {
  run = function()
    cpu.rip = 0x1000
    assert(cpu:run { timeout = 5 })
  end,
  run_until = function()
    cpu.rip = 0x1000
    cpu:run { until_rip = 0x1002, timeout = 0.001 }
  end,
  step = function()
    cpu.rip = 0x1000
    cpu:step()
  end,
  trace = function()
    cpu.rip = 0x1000
    cpu:trace(function() return "stop" end)
  end,
  vm_run = function()
    cpu.rip = 0x1000
    vm:run { timeout = 5 }
  end,
  vm_start = function()
    cpu.rip = 0x1000
    vm:start()
    vm:poll()
    vm:stop()
  end,
  trap = function() close(vm:pio(0x60, 2, device)) end,
  mmio = function() close(vm:mmio(0xfee10000, 0x1000, { memory = ram })) end,
  coalesced = function() close(vm:pio(0x70, 1, device, { coalesced = true })) end,
  msr = function() close(vm:msr(0x1234, device)) end,
  eventfd = function() close(vm:eventfd { port = 0x80, size = 2 }) end,
  irqfd = function() close(vm:irqfd(5, bell)) end,
  space = function() close(vm:space()) end,
  timer = function() close(vm:timer(100, print)) end,
  breakpoint = function() close(cpu:breakpoint(0x3000)) end,
  fault = function() close(vm.default:on_fault(0x100000, 0x1000, print)) end,
  vcpu = function() close(vm:vcpu { cpuid = { { leaf = 0, eax = 1 } } }) end,
  vm = function() close(luna.vm()) end,
  buffer = function() close(luna.buffer "4K") end,
  view = function() close(ram:view(0, 0x1000)) end,
  map = function()
    vm.default:map(ram, 0x200000)
    vm.default:unmap(0x200000, ram.size)
  end,
  update = function()
    vm.default:update(function(update) update:map(ram, 0x200000) end)
    vm.default:unmap(0x200000, ram.size)
  end,
  memory = function() ram:write(0x4000, vm.default:read(0x4000, 64) .. cpu:read(0x4000, 64)) end,
  look = function()
    tostring(cpu:run { timeout = 0 })
    return vm.default:regions(), tostring(vm), cpu:regs(), cpu:translate(0), luna.disasm("\xf4")
  end,
  state = function()
    cpu.rip = 0x2000
    cpu:set_state(cpu:state())
  end,
}

-- An error of the hook or of memory; any other is the library's.
local function is_meant(problem)
  problem = tostring(problem)
  return problem:find("so far", 1, true) or problem:find("not enough memory", 1, true)
    or problem:find("error in error handling", 1, true)
end

local function restore()
  debug.sethook()
  if fail then fail.fail_after() end
end

-- Does the call with an error at its n-th instruction or allocation; whether that came.
local function attempt(call, n)
  local came = false
  local function hook()
    came = true
    debug.sethook()
    error "so far"
  end
  local ok, problem = pcall(function()
    if fail then fail.fail_after(n) else debug.sethook(hook, "", n) end
    call()
    if fail then came = fail.failed() end
    restore()
  end)
  restore()
  came = came or not ok
  if not ok and not is_meant(problem) then error(problem, 0) end
  return came
end

-- What an error may have left: mapped memory whose unmapping it has prevented.
local function tidy()
  if vm.default:find(0x200000) then vm.default:unmap(0x200000, ram.size) end
  if cpu.started then cpu:join() end
  for i = #vm.vcpus, 2, -1 do vm.vcpus[i]:close() end
  for _, list in ipairs { vm.traps, vm.timers, vm.held } do
    for key, value in pairs(list) do
      local object = value == true and key or type(key) == "table" and key or value
      if not (list == vm.traps and object.first == 0x10) then object:close() end
    end
  end
  while vm.default.faults[1] do vm.default.faults[1]:close() end
  for id, space in pairs(vm.spaces) do
    if id > 0 then assert(space:close()) end
  end
end

local function check(name, n)
  tidy()
  for i = 1, 2 do
    local ok, problem = pcall(calls[name])
    if not ok then error(("%s, error %d, again %d: %s"):format(name, n, i, problem), 0) end
  end
  cpu.rip = 0x1000
  local ok, exit = pcall(cpu.run, cpu, { timeout = 5 })
  if not ok then error(("%s, error %d: the vCPU is stuck: %s"):format(name, n, exit), 0) end
  if exit.kind ~= "stopped" then error(("%s, error %d: %s"):format(name, n, tostring(exit)), 0) end
end

local errors = 0
local names = {}
for name in pairs(calls) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do
  if not (os.getenv "LUNA_ANYWHERE_ONLY") or name == os.getenv "LUNA_ANYWHERE_ONLY" then
    check(name, 0)
    local n = 1
    while attempt(calls[name], n) do
      check(name, n)
      errors = errors + 1
      n = n + STEP
    end
  end
end
other:close()
vm:close()
ram:close()
collectgarbage()
collectgarbage()
for kind, count in pairs(luna.live()) do
  if count ~= 0 then error(("%d objects of kind %s are left"):format(count, kind), 0) end
end
print(("%d calls, %d errors"):format(#names, errors))
