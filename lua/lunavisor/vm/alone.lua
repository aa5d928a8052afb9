-- SPDX-License-Identifier: MIT
-- A run of all vCPUs where only one is started: it needs no thread, and its exits no way from one
-- thread to another. The thread of vm:run runs it as cpu:run does, until another one is started.

local raw = require "lunavisor.binding.backend"
local dispatch = require "lunavisor.exit.dispatch"
local ending = require "lunavisor.vm.ending"
local exits = require "lunavisor.exit.record"
local timers = require "lunavisor.vm.timer"
local vcpus = require "lunavisor.vcpu.run"

local handle = dispatch.handle

local TIMEOUT = exits.numbers.timeout

local M = {}

--- In the place of an exit: the vCPU cannot be run here now.
M.ELSEWHERE = {}
local ELSEWHERE = M.ELSEWHERE

local way = { enter = raw.run_here }

function way.take(cpu, kind)
  if kind == 0 then return ELSEWHERE end
  if kind == TIMEOUT then return ending.exit "timeout" end
  local exit, verdict = handle(cpu, kind)
  if verdict == "park" then
    cpu.parked = true
    return ELSEWHERE
  end
  return exit
end

function way.stopped(cpu)
  return ending.asked(cpu.vm) or ELSEWHERE
end

--- Says in vm.alone which vCPU is the only one that is started, and without a thread.
function M.find(vm)
  local id, cpu = next(vm.started)
  vm.alone = cpu and next(vm.started, id) == nil and raw.here(cpu) and cpu or false
end

--- Runs vm.alone up to `deadline`, 0 for none: exit and vCPU, as vm:run gives them, or ELSEWHERE;
--- nil, message, code.
function M.run(vm, deadline)
  local cpu = vm.alone
  local limit = cpu.limit
  vm.serving, vm.slice = cpu, timers.slice()
  limit[1], limit[2] = timers.limit(vm, deadline), deadline
  local exit, message, code = vcpus.loop(cpu, limit, vcpus.entry(cpu, way.enter, way), way)
  if not exit then return nil, message, code end
  if exit == ELSEWHERE then
    if cpu[1] then raw.disarm(cpu) end
    M.find(vm)
  end
  return exit, exit.cpu
end

--- The run has ended.
function M.leave(vm)
  local cpu = vm.alone
  vm.alone, vm.slice = false, false
  if cpu and cpu[1] then raw.disarm(cpu) end
end

return M
