-- SPDX-License-Identifier: MIT
-- Wires of a bus: a device's lines and inputs as a test sees them, with the history of their edges,
-- and stuck where a test wants it.

local class = require "lunavisor.class"
local lines = require "lunavisor.device.line"

local M = {}

local histories = setmetatable({}, { __mode = "k" }) -- by line: a list of levels

--- Notes the edges of a line from here on. The list of levels, which tests empty.
function M.watch(line)
  local list = histories[line]
  if not list then
    list = {}
    histories[line] = list
    table.insert(line.sinks, 1, function(level) list[#list + 1] = level end)
    table.insert(line.targets, 1, list)
  end
  return list
end

--- The history of a line, nil where nobody watches it.
function M.history(line)
  return histories[line]
end

-- Passes a level on, unless the wire is stuck.
local function pass(self, level)
  if self.stuck ~= nil or level == self.out.level then return end
  self.out:set(level)
end

--- A wire from one line to another: { from =, out = }; whoever is driven by `out` sees it.
function M.new(name, from, target)
  local out = lines.new(name)
  local self = { from = from, out = out, stuck = nil }
  M.watch(out)
  if target then out:connect(target) end
  from:connect(function(level) pass(self, level) end)
  return self
end

--- Sticks at a level; nil: it works again, and follows.
function M.stick(self, level)
  self.stuck = level
  local now = level
  if level == nil then now = self.from.level end
  if now ~= self.out.level then self.out:set(now) end
end

--- The line of a bus's wire or device, checked.
function M.line(what, value)
  if class.of(value) ~= "line" then
    error(("%s: a line expected, got %s"):format(what, class.describe(value)), 3)
  end
  return value
end

return M
