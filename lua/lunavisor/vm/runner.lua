-- SPDX-License-Identifier: MIT
-- Who is running a vCPU or a VM: the coroutine in which handlers are at work, and a vCPU's thread.
-- The coroutine is held weakly, since one that was collected while it was suspended runs no more.

local raw = require "lunavisor.binding.backend"

local M = {}

local weak = { __mode = "v" }

function M.new()
  return setmetatable({}, weak)
end

local function leave(runner, ...)
  runner[1] = nil
  return ...
end

-- While its frame is on a stack, somebody is at work.
local function at_work(runner, body, ...)
  runner[1] = coroutine.running() or "main"
  return leave(runner, body(...))
end

--- xpcall(body, traceback, ...) while the runner is busy. Entering and leaving are inside the
--- protected call; an error that comes when it has ended changes nothing.
function M.protect(runner, traceback, body, ...)
  return xpcall(at_work, traceback, runner, body, ...)
end

-- Whether the stack of a coroutine has the runner's frame.
local function is_on(routine, runner)
  local own = (coroutine.running() or "main") == routine
  if not own and routine == "main" then return true end -- LuaJIT does not show it from here
  local level = own and 2 or 0
  while true do
    local info
    if own then info = debug.getinfo(level, "f") else info = debug.getinfo(routine, level, "f") end
    if not info then return false end
    if info.func == at_work then
      local _, first
      if own then
        _, first = debug.getlocal(level, 1)
      else
        _, first = debug.getlocal(routine, level, 1)
      end
      if first == runner then return true end
    end
    level = level + 1
  end
end

--- Whether handlers are at work, or suspended. A mark that an error has left behind does not count.
function M.busy(runner)
  local routine = runner[1]
  if routine == nil then return false end
  if (routine == "main" or coroutine.status(routine) ~= "dead") and is_on(routine, runner) then
    return true
  end
  runner[1] = nil
  return false
end

--- Starts a vCPU, and ends that: true, or nil, message, code. `start` is raw.start where nil, for a
--- thread of its own, or raw.start_here.
function M.start(cpu, start)
  raw.mark(cpu) -- as cpu:run does
  cpu.vm.started[cpu.id] = cpu -- before it is: an error in between leaves none that nobody knows
  local ok, message, code = (start or raw.start)(cpu)
  if ok then
    cpu.stopping = false -- what was asked for before
  elseif not raw.started(cpu) then
    cpu.vm.started[cpu.id] = nil
  end
  return ok, message, code
end

function M.join(cpu)
  local ok, message, code = raw.stop(cpu)
  if ok or not raw.started(cpu) then cpu.vm.started[cpu.id] = nil end
  return ok, message, code
end

return M
