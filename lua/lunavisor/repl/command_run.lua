-- SPDX-License-Identifier: MIT
-- Commands of a prompt that run the guest: steps, over calls, until something stops it.

local raw = require "lunavisor.binding.backend"
local u64 = require "lunavisor.text.u64"

local SLICE = 0.05 -- seconds of the guest between two looks at who might want it to stop

local function check_outside(self)
  if self:is_inside() then
    error("the guest waits for the handler that has this prompt: leave goes on with it", 0)
  end
end

-- What is said of a stop.
local function report(self, exit)
  self.exit = exit
  self:look()
  local value = exit.kind == "stopped" and type(exit.value) == "string" and ": " .. exit.value or ""
  local changes = self:changes()
  local text = tostring(exit):gsub("^timeout", "interrupted") .. value
  return text .. (changes and "\nchanged: " .. changes or "")
end

-- Runs fn(timeout), which gives an exit, until that is no end of a slice, or somebody wants it to
-- stop.
local function slices(self, fn)
  while true do
    local ok, exit, message = pcall(fn, SLICE)
    if not ok and tostring(exit):find("interrupted!", 1, true) then -- by Ctrl-C
      raw.interrupt_renew()
      return (assert(fn(0)))
    end
    if not ok then
      self:look()
      error(exit, 0)
    end
    if not exit then error(tostring(message), 0) end
    if exit.kind ~= "timeout" then return exit end
    if self.between() then return exit end
  end
end

-- Lets the guest run: one vCPU on this thread, several on their own.
local function go(self, options)
  local vm, cpu = self:need_vm(), self:need_cpu()
  return slices(self, function(seconds)
    if #vm.vcpus > 1 and not options then return (vm:run { timeout = seconds }) end
    local all = { timeout = seconds }
    for name, value in pairs(options or {}) do all[name] = value end
    return cpu:run(all)
  end)
end

-- The rip behind the instruction where it calls something, nil elsewhere.
local function behind_call(cpu)
  local one = cpu:instruction()
  local name = one and one.text:match "^(%l+)"
  if not name or not (name == "call" or name == "int" or name == "syscall" or name:find "^rep"
    or name:find "^loop") then return nil end
  return one.address + u64(one.size)
end

return function(add)
  add("s", "[COUNT]", "step: one instruction, or so many", function(self, rest)
    check_outside(self)
    local cpu, count = self:need_cpu(), rest ~= "" and self:numbers(rest) or 1
    count = u64.tonumber(count)
    local exit
    for _ = 1, count do
      exit = slices(self, function(seconds) return cpu:step(1, { timeout = seconds }) end)
      if exit.kind ~= "debug" or exit.breakpoint then break end
    end
    if not exit then error("s: a count from 1 on expected", 0) end
    return report(self, exit)
  end)

  add("n", "", "next: the same, over calls and loops too", function(self)
    check_outside(self)
    local cpu = self:need_cpu()
    local rip = behind_call(cpu)
    if rip then return report(self, go(self, { until_rip = rip })) end
    return report(self, slices(self, function(seconds)
      return cpu:step(1, { timeout = seconds })
    end))
  end)

  add("c", "[ADDRESS]", "continue until something stops it, or to there",
    function(self, rest)
      check_outside(self)
      local to = rest ~= "" and self:numbers(rest) or nil
      return report(self, go(self, to and { until_rip = to }))
    end)
end
