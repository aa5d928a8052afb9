-- SPDX-License-Identifier: MIT
-- The last exits of a vCPU, which the core keeps: what is left of each.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"
local exits = require "lunavisor.exit.record"
local u64 = require "lunavisor.text.u64"

local M = {}

local Past = class.define(class.class "past exit", {},
  "kind serial rip port gpa msr size access value")

local access_names = { [1] = "r", [2] = "w", [4] = "x" }
local places = { pio = "port", mmio = "gpa", fault = "gpa", host_fault = "gpa", msr = "msr" }

local function past_of(entry)
  local past = { kind = exits.names[entry.kind], serial = entry.serial, rip = entry.rip }
  local place = places[past.kind]
  if place then
    past[place], past.size = u64.tonumber(entry.address), entry.size
    past.access = access_names[entry.access]
    if entry.value ~= nil and past.access then
      past.value = entry.size <= 4 and u64.tonumber(entry.value) or entry.value
    end
  end
  return setmetatable(past, Past)
end

--- What it was, without where: "pio (read of 1 byte at port 0x60, answered 0x5)".
function M.text(past)
  local text = past.access and exits.texts[past.kind]
  if not text then return past.kind end
  local answered = past.access == "r" and past.value ~= nil
    and ", answered " .. u64.hex(past.value) or ""
  return ("%s (%s%s)"):format(past.kind, text(past), answered)
end

function Past.__tostring(past)
  return M.text(past) .. (past.rip and " at rip " .. u64.hex(past.rip) or "")
end

--- The last exits of a vCPU, up to `most`, the oldest first; its text has a line for each. nil,
--- message, code where its thread has it.
function M.list(cpu, most)
  local list, message, code = raw.last_exits(cpu, most)
  if not list then return nil, message, code end
  for i, entry in ipairs(list) do list[i] = past_of(entry) end
  return setmetatable(list, { __tostring = function(self)
    local lines = {}
    for i, past in ipairs(self) do lines[i] = tostring(past) end
    return table.concat(lines, "\n")
  end })
end

return M
