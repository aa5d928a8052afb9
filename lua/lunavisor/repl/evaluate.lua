-- SPDX-License-Identifier: MIT
-- Lua that somebody types: an expression gives its values, anything else is done.

local M = {}

local END = "<eof>'?$" -- of the message where something is missing

local function compile(source, name, env)
  local setfenv = rawget(_G, "setfenv")
  if not setfenv then return load(source, name, "t", env) end
  local fn, problem = loadstring(source, name)
  return fn and setfenv(fn, env), problem
end

--- A function of the source, in which names are those of `env`; nil, the message and whether more
--- lines could make it whole.
function M.compile(source, name, env)
  local fn, first = compile("return " .. source, name, env)
  if fn then return fn end
  local problem
  fn, problem = compile(source, name, env)
  if fn then return fn end
  return nil, problem, (first:find(END) or problem:find(END)) ~= nil
end

return M
