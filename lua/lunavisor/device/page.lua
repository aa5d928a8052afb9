-- SPDX-License-Identifier: MIT
-- The memory of a device that is recorded (`buffers` of its table): what a script writes to it is
-- noted, and at the end what has become of it, so that a replay knows whether it is the same.

local check = require "lunavisor.check"
local events = require "lunavisor.device.event"
local sorted = require "lunavisor.text.sorted"
local stores = require "lunavisor.device.store"
local trace = require "lunavisor.exit.trace"

local unpack = rawget(table, "unpack") or unpack
local back, byte, xpcall = trace.back, string.byte, xpcall

local M = {}

-- ---- What has become of it ----

-- A number of 32 bits for a page: no cryptography, but no change of one word is lost.
local PRIME, FACTOR = 4294967291, 65599

local function digest(data)
  local sum = 0
  for i = 1, #data, 4 do
    local a, b, c, d = byte(data, i, i + 3)
    sum = (sum * FACTOR + a + b * 0x100 + c * 0x10000 + d * 0x1000000) % PRIME
  end
  return sum
end

-- The pages of a buffer that are not zero, with their digests: "0:1a2b 1000:33c".
local function digests(buffer)
  local list = {}
  for i, at in ipairs(stores.pages(buffer)) do
    list[i] = ("%x:%x"):format(at, digest(buffer:read(at, stores.PAGE)))
  end
  return table.concat(list, " ")
end

--- What a buffer of a device has come to, once that has brought it up to date, as for a state.
function M.come_to(dev, name)
  local spec = rawget(dev, "class").layout.spec
  if spec.saving then spec.saving(dev) end
  return digests(dev.buffers[name])
end

--- The lines of the buffers of what is recorded, given to write(line).
function M.tell(about, write)
  local dev = about.object
  local buffers = type(dev) == "table" and rawget(dev, "class") and rawget(dev, "buffers") or {}
  for _, name in ipairs(sorted(buffers)) do
    write(("h%d %s %s"):format(about.number, name, M.come_to(dev, name)))
  end
end

-- ---- What is written to it ----

local function pack(...)
  return { n = select("#", ...), ... }
end

-- By method, where it has written and how much, by its arguments; nil of one that reads.
local function number(size)
  return function(_, offset, value)
    if value ~= nil then return offset, size end
  end
end

local WRITES = {
  u8 = number(1), u16 = number(2), u32 = number(4), u64 = number(8),
  write = function(_, offset, data) return offset, data and #data or 0 end,
  copy = function(_, offset, source, from, size)
    return offset, size or source and source.size - (from or 0)
  end,
  fill = function(object, _, offset, size)
    return offset or 0, size or object.size - (offset or 0)
  end,
}

-- What a call has written, as it is there now; a fill by its byte.
local function line_of(about, above, part, method, ...)
  local offset, size = WRITES[method](part.object, ...)
  offset, size = check.plain(offset), check.plain(size)
  local head = ("%d %d %s %x"):format(about.number, above, part.name, part.base + offset)
  if method == "fill" then return ("P%s %x %02x"):format(head, size, (...)) end
  return ("p%s %s"):format(head, events.bytes(part.object:read(offset, size)))
end

local function hook_write(self, about, part, method, later)
  local object = part.object
  local own, writes = object[method], WRITES[method]
  rawset(object, method, function(one, ...)
    if one ~= object or events.is_inside(self, about) or not writes(one, ...) then
      return own(one, ...)
    end
    local at, above = events.enter(self, about, about.clock), events.parent(self)
    local made = pack(xpcall(own, back, one, ...))
    if not made[1] then events.abandon(self, made[2]) end
    self.lines[at] = line_of(about, above, part, method, ...)
    events.leave(self)
    return unpack(made, 2, made.n)
  end)
  later(about, function() rawset(object, method, nil) end)
end

-- Hooks a buffer, or a view of it that begins `base` bytes into it, and views that are made of it.
local function hook(self, about, part, later)
  for method in pairs(WRITES) do hook_write(self, about, part, method, later) end
  local object = part.object
  local view = object.view
  rawset(object, "view", function(one, offset, size)
    local made, message, code = view(one, offset, size)
    if made and one == object then
      hook(self, about, { object = made, name = part.name, base = part.base
        + check.plain(offset or 0) }, later)
    end
    return made, message, code
  end)
  later(about, function() rawset(object, "view", nil) end)
end

--- Notes what is written to the buffers of a device from here on, by others than itself.
--- later(about, fn): what is to be done when it is not recorded any more.
function M.add(self, about, dev, later)
  for name, buffer in pairs(dev.buffers) do
    hook(self, about, { object = buffer, name = name, base = 0 }, later)
  end
end

return M
