-- SPDX-License-Identifier: MIT
-- luv, once in a process: false where it is not installed. Its loop is gone with its table, but not
-- what a second `require` takes for the loop; and busted lets each file of specs load anew.

local registry, key = debug.getregistry(), "lunavisor.spec.luv"
if registry[key] == nil then
  local found, uv = pcall(require, "luv")
  registry[key] = found and uv
end
return registry[key]
