-- SPDX-License-Identifier: MIT
-- A screen of VGA text, as it is in guest memory.

local class = require "lunavisor.class"

local M = {}

local Screen = class.class "screen"
local mine = class.checker(Screen)
local methods = {}

--- The screen in a space, or whatever has read(gpa, size): 80 columns and 25 rows from gpa 0xb8000.
function M.new(space)
  return setmetatable({ space = space, gpa = 0xb8000, columns = 80, rows = 25 }, Screen)
end

--- The text of a row, from 0, without blanks at its end.
function methods.row(self, number)
  mine(self)
  if type(number) ~= "number" or number < 0 or number >= self.rows or number % 1 ~= 0 then
    error(("screen:row: a row from 0 to %d expected, got %s"):format(self.rows - 1,
      tostring(number)), 2)
  end
  local cells = self.space:read(self.gpa + 2 * self.columns * number, 2 * self.columns)
  local text = cells:gsub("(.).", "%1"):gsub("[%z\1-\31]", " ")
  return (text:gsub("%s+$", ""))
end

--- The text of all rows, a line each, without empty ones at its end.
function methods.text(self)
  mine(self)
  local lines = {}
  for number = 0, self.rows - 1 do lines[#lines + 1] = self:row(number) end
  return (table.concat(lines, "\n"):gsub("\n+$", ""))
end

class.define(Screen, methods, "columns rows gpa", "space")
M.class = Screen

return M
