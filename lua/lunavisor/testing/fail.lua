-- SPDX-License-Identifier: MIT
-- Failures of tests: busted's where it runs, errors elsewhere; and what is closed after a test.

local class = require "lunavisor.class"

local M = {}

-- The module of busted while it runs tests, nil elsewhere.
local function running()
  local ok, busted = pcall(require, "busted")
  return ok and type(busted) == "table" and busted.subscribe and busted or nil
end

M.busted = running

--- Fails the test under way, at the line of the script that has called the library.
function M.fail(message)
  local info = debug.getinfo(class.outside(), "Sl")
  local text = info and ("%s:%d: %s"):format(info.short_src, info.currentline, message) or message
  local busted = running()
  if busted then busted.fail(text, 0) end
  error(text, 0)
end

-- ---- Closing ----

local open, subscribed = {}, false

--- Closes what tests have made here, the last first.
function M.close()
  for i = #open, 1, -1 do
    local one = open[i]
    open[i] = nil
    one:close()
  end
end

--- Closes something after the test under way.
function M.keep(object)
  open[#open + 1] = object
  local busted = running()
  if busted and not subscribed then
    subscribed = true
    busted.subscribe({ "test", "end" }, function()
      M.close()
      return nil, true
    end)
  end
  return object
end

--- The last that is kept, nil where there is none.
function M.last()
  return open[#open]
end

return M
