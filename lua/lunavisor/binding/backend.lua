-- SPDX-License-Identifier: MIT
-- The raw calls of the engine that runs: LuaJIT's FFI or the native module for Lua 5.4.

if rawget(_G, "jit") then
  return require "lunavisor.binding.ffi"
end
if _VERSION == "Lua 5.4" then
  return require "lunavisor.binding.native"
end
error("lunavisor needs Lua 5.4 or LuaJIT, this is " .. _VERSION
  .. (package.loaded.busted and "; say busted --lua=luajit or busted --lua=lua5.4" or ""))
