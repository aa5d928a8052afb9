-- SPDX-License-Identifier: MIT
-- vCPUs on threads of their own: exits that their threads finish in C (threads.c), and exits that
-- they queue to Lua (queued.lua); and those of a single vCPU under vm:run, as a ratio to cpu:run.

local rounds = require "rounds"

local PAIRS = 60

local function collect(command)
  local pipe, samples = assert(io.popen(rounds.build .. "/bench/threads " .. command)), {}
  for line in pipe:lines() do samples[#samples + 1] = assert(tonumber(line), line) end
  pipe:close()
  assert(#samples > 0, "threads " .. command .. " has failed")
  return samples
end

local function alone(accel, exits)
  local vm, cpu, ram, write = rounds.writer(accel)
  local function timed(object)
    return rounds.timed(function() write(object, exits) end)
  end
  local sample = rounds.ratio(timed(vm), timed(cpu), PAIRS)
  vm:close()
  ram:close()
  return sample
end

return {
  { name = "threads_strict", unit = "x", least = 0.95, engine = "luajit",
    measure = function() return collect "strict" end },
  { name = "queued_exit", unit = "x", limit = 3.5,
    measure = function()
      return collect(("free %s '%s/queued.lua'"):format(arg[-1], arg[0]:match "^(.*)/"))
    end },
  { name = "alone_exit", unit = "x", limit = 1.15,
    measure = function() return rounds.samples(alone, nil, 200) end },
  { name = "alone_exit_soft", unit = "x", limit = { luajit = 1.3, lua54 = 1.2 },
    measure = function() return rounds.samples(alone, "soft", 20000) end },
}
