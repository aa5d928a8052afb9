-- SPDX-License-Identifier: MIT
-- Guest memory for a device without a VM: ranges of bytes, a list of what its DMA did, and DMA that
-- fails where a test wants it.

local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Bytes ----

local Store = {}
Store.__index = Store

local function missing(self, gpa, size)
  for at = gpa, gpa + size - 1 do
    local found = false
    for _, range in ipairs(self.ranges) do
      found = found or at >= range[1] and at < range[1] + range[2]
    end
    if not found then return ("nothing is mapped at gpa 0x%x"):format(at) end
  end
  return nil
end

-- Whether one range has it all, which needs no look at each byte.
local function within(self, gpa, size)
  for _, range in ipairs(self.ranges) do
    if gpa >= range[1] and gpa + size <= range[1] + range[2] then return nil end
  end
  return missing(self, gpa, size)
end

function Store.read(self, gpa, size)
  local why = within(self, gpa, size)
  if why then return nil, why end
  local list, bytes = {}, self.bytes
  for i = 1, size do list[i] = string.char(bytes[gpa + i - 1] or 0) end
  return table.concat(list)
end

function Store.write(self, gpa, data)
  local why = within(self, gpa, #data)
  if why then return nil, why end
  for i = 1, #data do self.bytes[gpa + i - 1] = data:byte(i) end
  return true
end

--- Takes over all bytes of another store.
function Store.copy(self, other)
  self.bytes = {}
  for at, byte in pairs(other.bytes) do self.bytes[at] = byte end
end

--- Zeroes in ranges: a size in bytes from gpa 0, or a list of { gpa, size }.
function M.store(ranges)
  return setmetatable({ bytes = {},
    ranges = type(ranges) == "table" and ranges or { { 0, ranges } } }, Store)
end

-- ---- What the device sees of it ----

local Port = {}
Port.__index = Port

-- Why the access is to fail, nil where it is not.
local function failure(self, access, gpa, size)
  for i, rule in ipairs(self.failures) do
    local first, last = rule.gpa or 0, rule.gpa and rule.gpa + (rule.size or 1) or math.huge
    if (not rule.access or rule.access == access) and gpa < last and gpa + size > first then
      if rule.count then
        rule.count = rule.count - 1
        if rule.count == 0 then table.remove(self.failures, i) end
      end
      return rule.message
    end
  end
  return nil
end

local function done(self, access, gpa, size, data, why)
  local entry = { access = access, gpa = gpa, size = size, data = data, failed = why }
  self.log[#self.log + 1] = entry
end

function Port.read(self, gpa, size)
  local data, why = nil, failure(self, "r", gpa, size)
  if not why then
    data, why = self.store:read(gpa, size)
  end
  done(self, "r", gpa, size, data, why)
  return data, why
end

function Port.write(self, gpa, data)
  local ok, why = nil, failure(self, "w", gpa, #data)
  if not why then ok, why = self.store:write(gpa, data) end
  done(self, "w", gpa, #data, data, why)
  return ok, why
end

--- What a device's DMA goes through: the store, a log, and failures.
function M.port(store)
  return setmetatable({ store = store, log = {}, failures = {} }, Port)
end

local known = { gpa = true, size = true, access = true, count = true, message = true }

--- Notes which DMA is to fail, as bus:fail_dma takes it.
function M.fail(port, rule)
  if rule ~= nil and type(rule) ~= "table" then
    error(("bus:fail_dma: a table expected, got %s"):format(class.describe(rule)), 3)
  end
  local made = { message = "the test lets it fail" }
  for key, value in pairs(rule or { count = 1 }) do
    if not known[key] then
      error(("bus:fail_dma: unknown option '%s'%s"):format(tostring(key),
        class.hint(key, known)), 3)
    end
    made[key] = value
  end
  if made.access ~= nil and made.access ~= "r" and made.access ~= "w" then
    error(("bus:fail_dma: access: 'r' or 'w' expected, got %s"):format(tostring(made.access)), 3)
  end
  port.failures[#port.failures + 1] = made
  return function()
    for i, other in ipairs(port.failures) do
      if other == made then table.remove(port.failures, i) end
    end
  end
end

--- One DMA access as text.
function M.text(entry)
  return ("%s of %d byte%s at gpa %s%s"):format(entry.access == "r" and "read" or "write",
    entry.size, entry.size == 1 and "" or "s", u64.hex(entry.gpa),
    entry.failed and ", which failed: " .. entry.failed or "")
end

return M
