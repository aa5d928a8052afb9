-- SPDX-License-Identifier: MIT
-- Who is running a vCPU or a VM: the coroutine in which handlers are at work. It is held weakly,
-- since one that was collected while it was suspended runs no more.

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

return M
