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

local world = require "spec.support.anywhere_world"()
local vm, ram, cpu, other, tidy = world.vm, world.ram, world.cpu, world.other, world.tidy
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
