-- SPDX-License-Identifier: MIT
-- The gate of address line 20, which several devices of a PC open and close: inputs fast (port
-- 0x92) and keyboard, each of which decides when it changes; the line a20 says what the gate is, so
-- that each knows what another has done. Option map: a function(open) that changes the memory to
-- fit; nil and a message where it cannot.

local device = require "lunavisor.device"

-- Lets the memory be as the gate is.
local function apply(d)
  if not d.options.map or d.mapped == d.open then return end
  local ok, done, why = pcall(d.options.map, d.open)
  if ok and done then
    d.mapped = d.open
  else
    d:log(("memory stays as it was: %s"):format(tostring(ok and why or done)))
  end
end

local function turn(d, level)
  if level == d.open then return end
  d.open = level
  apply(d)
end

return device "a20_gate" {
  registers = {}, options = { map = false }, state = { open = true }, holds = "mapped",
  inputs = { fast = turn, keyboard = turn },
  lines = { a20 = function(d) return d.open end },
  init = function(d) d.mapped = true end, -- memory begins as if there were no gate
  reset = apply, loaded = apply,
}
