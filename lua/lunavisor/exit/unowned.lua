-- SPDX-License-Identifier: MIT
-- Accesses to ports and addresses that no device and no handler takes: a list of them, and what the
-- guest reads there.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local M = {}

local policies = { stop = true, ones = true, zeros = true, log = true }

--- Refuses what is no policy.
function M.check(what, policy)
  if policy ~= nil and not policies[policy] then
    error(("%s: unknown: 'stop', 'ones', 'zeros' or 'log' expected, got %s%s"):format(what,
      tostring(policy), class.hint(policy, policies)), 3)
  end
end

--- What a VM has of it.
function M.new(policy)
  return { policy = policy or "stop", list = {} }
end

local ALL_ONES = u64.bnot(0)
local verbs = { r = "read", w = "write" }

local function text(entry)
  return ("%s of %d byte%s at %s 0x%x"):format(verbs[entry.access], entry.size,
    entry.size == 1 and "" or "s", entry.kind == "pio" and "port" or "gpa", entry.address)
end

local Entry = class.define(class.class("unknown access", "entry"), {},
  "kind address size access count rip")

function Entry.__tostring(self)
  return ("%s, %d time%s, at last from rip %s"):format(text(self), self.count,
    self.count == 1 and "" or "s", u64.hex(self.rip))
end

-- Counts an access; whether it is the first of its kind.
local function note(list, exit)
  local kind = exit.kind == "pio" and "pio" or "mmio"
  local address = exit.port or exit.gpa
  local key = ("%s %s %d %x"):format(kind, exit.access, exit.size, address)
  local entry = list[key]
  local first = not entry
  if first then
    entry = setmetatable({ kind = kind, address = address, size = exit.size, access = exit.access,
      count = 0, rip = exit.rip }, Entry)
    list[key] = entry
  end
  entry.count, entry.rip = entry.count + 1, exit.rip
  return first, entry
end

local owned = { pio = true, mmio = true, fault = true }

--- Counts the exit if it is such an access. Whether it is answered, and the guest goes on.
function M.answer(cpu, exit)
  if not owned[exit.kind] or not verbs[exit.access] then return false end
  local unowned = cpu.vm.unowned
  local first, entry = note(unowned.list, exit)
  if unowned.policy == "stop" then return false end
  if first and unowned.policy == "log" then
    io.stderr:write(("vm: nobody's: %s, from rip %s\n"):format(text(entry), u64.hex(exit.rip)))
  end
  if exit.access == "w" then
    raw.answer(cpu)
    return true
  end
  local _, message = raw.answer(cpu, unowned.policy == "zeros" and u64(0) or ALL_ONES)
  return message == nil
end

--- The list, what was touched most often first; its text has a line for each.
function M.list(unowned)
  local list = {}
  for _, entry in pairs(unowned.list) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return text(a) < text(b)
  end)
  return setmetatable(list, { __tostring = function(self)
    local lines = {}
    for i, entry in ipairs(self) do lines[i] = tostring(entry) end
    return table.concat(lines, "\n")
  end })
end

return M
