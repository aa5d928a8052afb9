-- SPDX-License-Identifier: MIT
-- LuaJIT's compiler and the collector stand still while the program starts: what runs once takes
-- twice the time where it is compiled on the way, and nearly all that is made then stays.

local M = {}

local jit = rawget(_G, "jit")

--- What follows runs once.
function M.start()
  if jit then
    jit.off()
    collectgarbage "stop"
  end
end

--- What follows is the guest's or the script's.
function M.run()
  if jit then
    jit.on()
    collectgarbage "restart"
  end
end

return M
