-- SPDX-License-Identifier: MIT
-- Events of a recording: what comes to a device, as a line of the file, before the lines of what
-- comes of it. One may come inside another; the outermost is written whole, or not at all.

local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Numbers ----

--- A number as hexadecimal digits.
function M.hex(value)
  return u64.hex(value):sub(3)
end

--- Bytes as hexadecimal digits.
function M.bytes(data)
  return (data:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- ---- Lines ----

local function add(self, text)
  local lines = self.lines
  lines[#lines + 1] = text
end

--- Writes what is there.
function M.flush(self)
  local lines = self.lines
  for i = 1, #lines do
    self.file:write(lines[i], "\n")
    lines[i] = nil
  end
end

-- Notes a moment of a clock, where it is not the one that was written last.
local function stamp(self, clock)
  local moment = clock.source:time()
  if moment ~= self.moment then
    self.moment = moment
    add(self, ("@%.0f"):format(moment))
  end
end

-- Lets fields be looked at before and after an event of a device, or, where there is none, of a
-- clock, which may be of any: what has changed before is a script's doing, and what has after, the
-- device's own.
local function look(self, about, silent)
  if about then
    if about.look and not M.is_inside(self, about) then about.look(silent) end
    return
  end
  for _, one in ipairs(self.devices) do
    if one.look and not M.is_inside(self, one) then one.look(silent) end
  end
end

--- Begins an event of a device (of the clock alone, where nil), whose line is to be put at the
--- number that is returned: what comes of it stands behind it.
function M.enter(self, about, clock)
  look(self, about)
  self.depth = self.depth + 1
  self.inside[self.depth] = about or false
  if clock then stamp(self, clock) end
  local at = #self.lines + 1
  self.lines[at] = ""
  return at
end

--- Ends it.
function M.leave(self)
  local about = self.inside[self.depth]
  self.depth = self.depth - 1
  look(self, about, true)
  if self.depth > 0 then return end
  for _, clock in ipairs(self.clocks) do clock.source.moment = nil end
  M.flush(self)
end

--- What has raised is no event: the access stays open.
function M.abandon(self, problem)
  local about = self.inside[self.depth]
  self.depth = self.depth - 1
  look(self, about, true)
  if self.depth == 0 then
    self.lines, self.moment = {}, nil
    for _, clock in ipairs(self.clocks) do clock.source.moment = nil end
  end
  error(problem, 0)
end

--- The number of the device in whose event this one is, 0 for none.
function M.parent(self)
  local about = self.depth > 1 and self.inside[self.depth - 1]
  return about and about.number or 0
end

--- Whether an event of the device is under way.
function M.is_inside(self, about)
  for i = 1, self.depth do if self.inside[i] == about then return true end end
  return false
end

--- What comes of an event, or of what the script has done.
function M.effect(self, text)
  add(self, text)
  if self.depth == 0 then M.flush(self) end
end

return M
