-- SPDX-License-Identifier: MIT
-- A program that lets an error come at each instruction of each call (by a count hook), and with
-- the argument "memory" lets each allocation fail (Lua 5.4, by alloc.c). After every one the VM,
-- the vCPU and the buffer have to be as before, and do their work. Prints how many errors there
-- were. LUNA_ANYWHERE_STEP=n takes every n-th instruction, LUNA_ANYWHERE_ONLY=name one call.
-- LUNA_ANYWHERE_ELF is an executable with source lines.

local luna = require "lunavisor"

if rawget(_G, "jit") then jit.off() end -- hooks do not come in compiled code
local STEP = tonumber(os.getenv "LUNA_ANYWHERE_STEP" or "") or 1

local fail
if arg[1] == "memory" then fail = assert(package.loadlib(arg[2], "luaopen_alloc"))() end

local vm = luna.vm { irqchip = "split", unknown_msrs = "exit" }
local ram = luna.buffer { size = "64K", memfd = true }
vm.default:map(ram, 0)
ram:write(0x1000, "\xe6\x10\xe6\x10\xeb\xfa") -- again: out 0x10, al (twice); jmp again
ram:write(0x2800, "\xe4\x20\x90\xe6\x10\xeb\xfe") -- in al, 0x20; nop; out 0x10, al; jmp $
-- mov ecx, 0x12345; rdmsr; #GP leads to the OUT
ram:write(0x2a00, "\x66\xb9\x45\x23\x01\x00\x0f\x32")
ram:u16(13 * 4, 0x1000)
local cpu = vm:vcpu { rip = 0x1000, rsp = 0x8000 }
local other = luna.vm { irqchip = "split" }
vm:pio(0x10, 1, { write = function()
  if cpu.rip ~= nil then cpu:stop(1) end
end })

local spare = other:vcpu() -- never runs: what is queued for it stays
local world = { vm = vm, ram = ram, cpu = cpu, other = other, spare = spare }
local calls = require "spec.support.anywhere_calls"(world)

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
  luna.debug(false)
  for _, region in ipairs(vm.default:regions()) do
    if region.gpa >= 0x200000 then vm.default:unmap(region.gpa, region.size) end
  end
  if cpu.started then cpu:join() end
  cpu:set_space(0)
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
  local ok, exit = pcall(cpu.run, cpu, { timeout = 60 })
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
