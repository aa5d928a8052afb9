-- SPDX-License-Identifier: MIT
-- What ends a run of all vCPUs although none of them has met an exit that nobody takes.

local exits = require "lunavisor.exit.record"
local timers = require "lunavisor.vm.timer"
local vcpus = require "lunavisor.vcpu.run"

local pairs = pairs

local M = {}

--- An exit that is none of a vCPU.
function M.exit(kind, value)
  return exits.make { kind = kind, value = value }
end

--- What a cpu:stop or vm:stop asks for: an exit, and its vCPU for the former; or nil.
function M.asked(self)
  if self.stopping then
    local value = self.stopping[1]
    self.stopping = false
    timers.stop_due(self, false)
    return M.exit("stopped", value)
  end
  local exit, from
  local more = false
  for _, cpu in pairs(self.started) do
    if cpu.stopping and from then
      more = true
    elseif cpu.stopping then
      cpu:pause() -- for its registers
      exit, from = vcpus.stopped(cpu), cpu
      cpu:resume()
    end
  end
  timers.stop_due(self, self.due and more)
  return exit, from
end

return M
