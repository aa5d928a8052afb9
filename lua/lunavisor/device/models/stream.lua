-- SPDX-License-Identifier: MIT
-- The host's end of devices that send characters: a function, an object with write (an open file,
-- io.stdout), a ring buffer that keeps the last of what was sent, or a channel (channel.lua), from
-- which characters come too.

local class = require "lunavisor.class"

local M = {}

local Ring = class.class "ring buffer"
local mine = class.checker(Ring)
local methods = {}

--- A buffer that keeps the last `size` characters written to it, 65536 where nil.
function M.ring(size)
  size = size or 65536
  if type(size) ~= "number" or size < 1 or size % 1 ~= 0 then
    error(("stream.ring: size: a number of characters from 1 expected, got %s"):format(
      tostring(size)), 2)
  end
  return setmetatable({ size = size, parts = {}, length = 0, lost = 0 }, Ring)
end

--- All that it keeps, as a string; it stays.
function methods.text(self)
  mine(self)
  local text = table.concat(self.parts):sub(-self.size)
  self.lost = self.lost + self.length - #text
  self.parts, self.length = { text }, #text
  return text
end

--- All that it keeps, as a string; it is empty afterwards.
function methods.take(self)
  mine(self)
  local text = methods.text(self)
  self.parts, self.length = {}, 0
  return text
end

--- Appends text.
function methods.write(self, text)
  mine(self)
  self.parts[#self.parts + 1] = text
  self.length = self.length + #text
  if self.length >= 2 * self.size then methods.text(self) end
  return self
end

class.define(Ring, methods, "size lost", "parts length")

function Ring.__tostring(self)
  return ("ring buffer (%d of %d)"):format(math.min(self.length, self.size), self.size)
end

--- The function(text) of a device's option `output`: false is nowhere. Files are flushed at once: a
--- prompt without a line feed is to be seen.
function M.writer(what, output, level)
  if output == false then return function() end end
  if type(output) == "function" then return output end
  local kind = type(output)
  if kind ~= "table" and kind ~= "userdata" or type(output.write) ~= "function" then
    error(("%s: output: a function, an open file, an object with write, or false expected, got %s")
      :format(what, class.describe(output)), (level or 1) + 1)
  end
  if io.type(output) then
    return function(text)
      output:write(text)
      output:flush()
    end
  end
  return function(text) output:write(text) end
end

--- The same for a device d, and where its `output` is a channel: feed(d, text) gets what comes, at
--- most room(d) bytes at once. Both nil: nothing is received.
function M.connect(d, what, feed, room)
  local output = d.options.output
  local writer = M.writer(what, output, 5)
  if class.of(output) == "channel" then
    output:receive(feed and function(text) feed(d, text) end, room and function()
      return room(d)
    end)
  end
  return writer
end

--- What a device does when it is attached to a VM, or taken out (vm is false): the VM's timers look
--- after its channel.
function M.serve(d, vm)
  local output = d.options.output
  if class.of(output) == "channel" then output:serve(vm or nil) end
end

return M
