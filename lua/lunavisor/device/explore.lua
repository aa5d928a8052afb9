-- SPDX-License-Identifier: MIT
-- A device that nobody has modelled: it takes every access, breaks busy waits, and drafts its own
-- table from what the driver did.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local registers = require "lunavisor.device.register"
local u64 = require "lunavisor.text.u64"

local M = {}

local Explorer = class.class "explorer"
local mine = class.checker(Explorer)
local methods = {}

local PATIENCE = 16 -- reads of one place, with nothing else between, that are a busy wait

-- ---- Busy waits ----

local function ones(size)
  return bits.plain(bits.all(size), 8 * size)
end

-- What reads get that wait, one way after the other; `n` counts the reads of a way.
local ways = {
  { name = "ones", value = function(_, size) return ones(size) end },
  { name = "zeros", value = function() return 0 end },
  { name = "toggling", value = function(n, size) return n % 2 == 0 and ones(size) or 0 end },
  { name = "counting", value = function(n) return n % 256 end },
}

local function typed(value, size)
  return size > 4 and u64.exact(value) or value
end

-- Which way a place is in after so many reads in a row: nil while it answers what is stored.
local function way_of(entry, run)
  if run <= PATIENCE then return nil end
  local index = math.floor((run - PATIENCE - 1) / PATIENCE) + (entry.way or 1)
  return (index - 1) % #ways + 1
end

-- The driver does something else than to wait: what it read last has let it go on.
local function settle(self)
  local entry = self.waiting
  if entry and entry.run > PATIENCE then
    entry.way = way_of(entry, entry.run)
    entry.waits = entry.waits + 1
  end
  if entry then entry.run = 0 end
  self.waiting = false
end

-- ---- Accesses ----

local function entry_of(self, offset, size)
  local entry = self.places[offset]
  if not entry then
    entry = { offset = offset, reads = 0, writes = 0, sizes = {}, value = 0, written = {}, run = 0,
      waits = 0 }
    self.places[offset] = entry
  end
  entry.sizes[size] = (entry.sizes[size] or 0) + 1
  return entry
end

local function note(self, access, offset, size, value)
  if #self.log < self.most then
    self.log[#self.log + 1] = { access = access, offset = offset, size = size, value = value }
  end
end

--- The guest's read.
function methods.read(self, offset, size)
  local entry = entry_of(self, offset, size)
  if self.waiting ~= entry then settle(self) end
  self.waiting = entry
  entry.reads, entry.run = entry.reads + 1, entry.run + 1
  local way = way_of(entry, entry.run)
  local value
  if way then
    value = typed(ways[way].value(entry.run, size), size)
  else
    value = bits.value(bits.bytes(entry.value, 8), size)
  end
  note(self, "r", offset, size, value)
  return value
end

--- The guest's write.
function methods.write(self, offset, size, value)
  settle(self)
  local entry = entry_of(self, offset, size)
  entry.writes, entry.value = entry.writes + 1, value
  entry.written[#entry.written + 1] = #entry.written < 8 and value or nil
  note(self, "w", offset, size, value)
end

-- ---- The draft ----

-- The size that most accesses had that are no longer than the way to the next place.
local function width_of(entry, room)
  local width, most = 1, 0
  for _, size in ipairs { 1, 2, 4, 8 } do
    local count = entry.sizes[size] or 0
    if count > most and size <= room then width, most = size, count end
  end
  return width
end

local function values_text(list)
  local parts = {}
  for i, value in ipairs(list) do parts[i] = u64.hex(value) end
  return #parts > 0 and ", wrote " .. table.concat(parts, " ") or ""
end

local function draft_line(entry, room)
  local access = entry.writes == 0 and ', access = "ro"' or entry.reads == 0 and ', access = "wo"'
    or ""
  local waited = entry.waits > 0 and (", waited %d time%s and went on at %s"):format(entry.waits,
    entry.waits == 1 and "" or "s", ways[entry.way].name) or ""
  return ('    R%02X = { at = 0x%02x, width = %d%s, todo = "?" }, -- %d read%s, %d write%s%s%s')
    :format(entry.offset, entry.offset, width_of(entry, room), access, entry.reads,
      entry.reads == 1 and "" or "s", entry.writes, entry.writes == 1 and "" or "s",
      values_text(entry.written), waited)
end

--- A draft of the device's table, as text that is Lua.
function methods.draft(self)
  mine(self)
  settle(self)
  local list = {}
  for _, entry in pairs(self.places) do list[#list + 1] = entry end
  table.sort(list, function(a, b) return a.offset < b.offset end)
  local out = { ('local device = require "lunavisor.device"\nreturn device "%s" {\n  size = 0x%x,')
    :format(self.name, self.size), "  registers = {" }
  for i, entry in ipairs(list) do
    local behind = list[i + 1] and list[i + 1].offset or self.size
    out[#out + 1] = draft_line(entry, behind - entry.offset)
  end
  out[#out + 1] = "  },\n}"
  return table.concat(out, "\n") .. "\n"
end

class.define(Explorer, methods, "name at port size log places",
  "most waiting memory offset read_block write_block")
Explorer.__tostring = methods.draft

local OPTIONS = { at = true, port = true, size = true, name = true, most = true }

--- A device that takes every access to `size` bytes. options: size; name, "unknown" where nil; at,
--- a gpa, or port, for whoever gives it a place: vm:mmio(explorer.at, explorer.size, explorer);
--- most: how many accesses its log keeps, 10000 where nil. Reads give what was written last, or
--- zeros; one that is repeated again and again, with nothing else between, gets ones, zeros, both
--- in turn and numbers that count. print(explorer) is a draft of the table of such a device.
function M.new(options)
  if type(options) ~= "table" then
    error("device.explore: options such as { at = 0xd0000000, size = 0x1000 } expected", 2)
  end
  for key in pairs(options) do
    if not OPTIONS[key] then
      error(("device.explore: unknown option '%s'%s"):format(tostring(key),
        class.hint(key, OPTIONS)), 2)
    end
  end
  if not registers.is_whole(options.size, 1, 2 ^ 52) then
    error(("device.explore: size: a number of bytes expected, got %s"):format(
      tostring(options.size)), 2)
  end
  return setmetatable({ name = options.name or "unknown", at = options.at, port = options.port,
    size = options.size, log = {}, places = {}, most = options.most or 10000, waiting = false },
    Explorer)
end

return M
