-- SPDX-License-Identifier: MIT
-- How a run of a process ended, as a table and as a sentence.

local class = require "lunavisor.class"
local linux = require "lunavisor.process.linux"

local Ending = class.define(class.class "ending", {}, "kind status signal exit value")

local M = { class = Ending }

local TIMEOUT, CRASH = 124, 125

--- It has called exit.
function M.exited(status)
  return setmetatable({ kind = "exited", status = status }, Ending)
end

--- A signal has ended it; `exit`: at which exception, nil where it was sent by a call.
function M.killed(number, exit)
  return setmetatable({ kind = "killed", signal = linux.signal(number), status = 128 + number,
    exit = exit }, Ending)
end

--- The run has ended, and the process has not.
function M.stopped(exit)
  local late, told = exit.kind == "timeout", exit.kind == "stopped" or exit.kind == "limit"
  return setmetatable({ kind = late and "timeout" or told and "stopped" or "failed", exit = exit,
    value = exit.kind == "stopped" and exit.value or nil,
    status = late and TIMEOUT or not told and CRASH or nil }, Ending)
end

--- "exited with status 1"; "killed by SIGSEGV: exception (#PF, ...) at rip 0x401000 <main>: ..."
function Ending.__tostring(self)
  if self.kind == "exited" then return ("exited with status %d"):format(self.status) end
  local text = self.kind == "killed" and "killed by " .. self.signal or self.kind
  return self.exit and ("%s: %s"):format(text, tostring(self.exit)) or text
end

return M
