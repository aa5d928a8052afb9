-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: what measures its runs, where something does. Each kind of
-- measurement is a table of functions, any of which may be missing:
--   begin(vm) -> part     for a VM that has just been made; of the part:
--   part:enter(cpu)       a run begins; nil for that of all vCPUs
--   part:leave(ended)     it has ended: with this exit, false where it has raised, or nil
--   part:start(cpu)       a vCPU is going to be started; nil for all
--   part:entry(run)       what is to be called for raw.run, which it is given; or nil
--   part:taking(next)     the same for raw.next
--   part:trap(trap)       a device has a range
--   part:exit(exit)       no device has taken this exit
--   part:attach(dev, name) a device of the kit is attached
--   part:close()          the VM is going to be closed

local lines = require "lunavisor.device.line"

local clock = require("lunavisor.binding.backend").clock

local M = {}

local kinds = {} -- a list
local taps = setmetatable({}, { __mode = "k" })

--- A target for a device's lines that a measurement listens with: of this device alone, also where
--- another takes its place.
function M.tap(name, changed)
  local tap = lines.new(name, changed)
  taps[tap] = true
  return tap
end

function M.is_tap(target)
  return taps[target] ~= nil
end

local Meter = {}
Meter.__index = Meter

local function each(name)
  return function(self, ...)
    for _, part in ipairs(self.parts) do
      if part[name] then part[name](part, ...) end
    end
  end
end

for _, name in ipairs { "start", "trap", "exit", "attach", "close" } do Meter[name] = each(name) end

local enter, leave = each "enter", each "leave"

--- A run of a vCPU, or of all, begins; from one of its handlers another may. Returns its deadline,
--- 0 for none, of which what the parts take here is no part.
function Meter.enter(self, deadline, cpu)
  self.depth = self.depth + 1
  if self.depth > 1 then return deadline end
  local before = clock()
  local ok, message = pcall(enter, self, cpu)
  if not ok then
    self.depth = 0
    error(message, 0)
  end
  return deadline == 0 and 0 or deadline + (clock() - before)
end

function Meter.leave(self, ended)
  self.depth = self.depth - 1
  if self.depth == 0 then leave(self, ended) end
end

-- `plain` with what the parts put around it.
local function around(self, name, plain)
  local made = plain
  for _, part in ipairs(self.parts) do
    made = part[name] and part[name](part, made) or made
  end
  return made
end

--- What a vCPU is to be run by that has been run by `current`, where `plain` is what does it
--- without measurements.
function Meter.entry(self, current, plain)
  if current ~= plain and current ~= self.entered then return current end
  self.entered = around(self, "entry", plain)
  return self.entered
end

--- What gives the exits of all vCPUs, for `plain`.
function Meter.taking(self, plain)
  return around(self, "taking", plain)
end

--- Measures all VMs that are made from here on.
function M.add(kind)
  kinds[#kinds + 1] = kind
end

--- VMs that are made from here on are not.
function M.remove(kind)
  for i = #kinds, 1, -1 do if kinds[i] == kind then table.remove(kinds, i) end end
end

--- Measures a VM, where something is to be measured.
function M.begin(vm)
  if #kinds == 0 then return end
  local parts = {}
  for i, kind in ipairs(kinds) do parts[i] = kind.begin(vm) end
  vm.meter = setmetatable({ parts = parts, depth = 0, entered = false }, Meter)
end

return M
