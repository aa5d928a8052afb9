-- SPDX-License-Identifier: MIT
-- Who is running a vCPU or a VM: the coroutine in which handlers are at work, and a vCPU's thread.
-- The coroutine is held weakly, since one that was collected while it was suspended runs no more.

local raw = require "lunavisor.binding.backend"

local M = {}

local weak = { __mode = "v" }

function M.new()
  return setmetatable({}, weak)
end

function M.enter(runner)
  runner[1] = coroutine.running() or "main"
end

function M.leave(runner)
  runner[1] = nil
end

--- Whether handlers are at work, or suspended.
function M.busy(runner)
  local routine = runner[1]
  return routine ~= nil and (routine == "main" or coroutine.status(routine) ~= "dead")
end

--- Starts a vCPU's thread, and ends it: true, or nil, message, code.
function M.start(cpu)
  local ok, message, code = raw.start(cpu)
  if ok then cpu.vm.started[cpu.id] = cpu end
  return ok, message, code
end

function M.join(cpu)
  local ok, message, code = raw.stop(cpu)
  if ok then cpu.vm.started[cpu.id] = nil end
  return ok, message, code
end

return M
