-- SPDX-License-Identifier: MIT
-- vCPUs on threads of their own: exits that their threads finish in C (threads.c), and exits that
-- they queue to Lua (queued.lua).

local rounds = require "rounds"

local function collect(command)
  local pipe, samples = assert(io.popen(rounds.build .. "/bench/threads " .. command)), {}
  for line in pipe:lines() do samples[#samples + 1] = assert(tonumber(line), line) end
  pipe:close()
  assert(#samples > 0, "threads " .. command .. " has failed")
  return samples
end

return {
  { name = "threads_strict", unit = "x", least = 0.95, engine = "luajit",
    measure = function() return collect "strict" end },
  { name = "queued_exit", unit = "x", limit = 3.5,
    measure = function()
      return collect(("free %s '%s/queued.lua'"):format(arg[-1], arg[0]:match "^(.*)/"))
    end },
}
