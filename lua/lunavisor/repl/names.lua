-- SPDX-License-Identifier: MIT
-- The names that a prompt knows: those it was given, what is at hand (vm, cpu, space, exit, luna),
-- and the script's globals, which it can set. In addresses, symbols and registers too.

local registers = require "lunavisor.vcpu.registers"

local M = {}

local at_hand = {
  vm = function(session) return session:vm() end,
  cpu = function(session) return session:cpu() end,
  space = function(session)
    local cpu, vm = session:cpu(), session:vm()
    return cpu and cpu[1] and cpu.space or vm and vm.default
  end,
  exit = function(session) return session.exit or nil end,
  luna = function() return require "lunavisor" end,
  print = function(session) return session.print end,
}

M.AT_HAND = at_hand

--- The table in which a session's Lua runs: `given` are names of the caller's, which it sets too.
function M.of(session, given)
  return setmetatable({}, {
    __index = function(_, name)
      local value = rawget(given, name)
      if value ~= nil then return value end
      if at_hand[name] then return at_hand[name](session) end
      return _G[name]
    end,
    __newindex = function(_, name, value)
      if at_hand[name] or rawget(given, name) ~= nil then
        rawset(given, name, value)
      else
        _G[name] = value
      end
    end,
  })
end

--- The same for addresses.
function M.for_addresses(session)
  local known = registers.names()
  return setmetatable({}, { __index = function(_, name)
    local cpu, vm = session:cpu(), session:vm()
    local symbol = vm and vm.symbols:find(name)
    if symbol ~= nil then return symbol end
    if cpu and known[name] and not registers.is_group(name) then return cpu[name] end
    return session.env[name]
  end })
end

return M
