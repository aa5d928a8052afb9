-- SPDX-License-Identifier: MIT
-- Making something in the core and noting it here, both or neither: an error can come at any
-- instruction (of a hook, of memory), also between the two.

local raw = require "lunavisor.binding.backend"

local function attempt(keep, make, ...)
  local number, message, code = make(...)
  if not number then return nil, message, code end
  return keep(number)
end

local function conclude(undo, ok, value, message, code)
  if ok then return value, message, code end
  local number = raw.made()
  if number then undo(number) end
  error(value, 0)
end

--- Calls make(...), a raw call that makes something with a number, then keep(number), and returns
--- the result; or nil, message, code of make. Where an error comes after the number is there,
--- undo(number) takes back both.
return function(undo, keep, make, ...)
  raw.make_none()
  return conclude(undo, pcall(attempt, keep, make, ...))
end
