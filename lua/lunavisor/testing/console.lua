-- SPDX-License-Identifier: MIT
-- What a guest prints and is sent: a port of one byte, or any device that calls console:put. What
-- is waited for ends the run at the write that completes it.

local class = require "lunavisor.class"

local M = {}

local Console = class.class "console"
local mine = class.checker(Console)
local methods = {}

--- A console of a guest, which stops a run that waits.
function M.new(guest)
  return setmetatable({ guest = guest, parts = {}, from = 1, wanted = false, recent = "",
    input = "" }, Console)
end

-- All that was printed; the parts become one.
local function output_of(self)
  local parts = self.parts
  if #parts > 1 then self.parts = { table.concat(parts) } end
  return self.parts[1] or ""
end

-- Where the text that is waited for ends, from the last one on; nil where it is not there.
local function found(self)
  local _, last = output_of(self):find(self.wanted, self.from, true)
  return last
end

--- Takes bytes that the guest prints: for devices that print.
function methods.put(self, bytes)
  mine(self)
  self.parts[#self.parts + 1] = bytes
  if not self.wanted then return end
  self.recent = (self.recent .. bytes):sub(-#self.wanted - #bytes)
  if self.recent:find(self.wanted, 1, true) then self.guest.vm:stop "printed" end
end

--- The next byte that was sent, nil where there is none: for devices that read.
function methods.get(self)
  mine(self)
  if self.input == "" then return nil end
  local byte = self.input:byte()
  self.input = self.input:sub(2)
  return byte
end

--- Sends a text to the guest, which it reads byte by byte.
function methods.send(self, text)
  mine(self)
  if type(text) ~= "string" then
    error(("console:send: a text expected, got %s"):format(class.describe(text)), 2)
  end
  self.input = self.input .. text
  return self
end

--- Lets the guest run until it has printed the text; as guest:prints.
function methods.expect(self, text, options)
  mine(self)
  self.guest:prints(text, options)
  return self
end

--- The last lines of what was printed.
function methods.tail(self, count)
  mine(self)
  local lines = {}
  for line in (self.output .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  if lines[#lines] == "" then lines[#lines] = nil end
  local first = math.max(1, #lines - (count or 5) + 1)
  return table.concat(lines, "\n", first)
end

--- Notes which text is waited for; true where it is there already.
function M.want(self, text)
  self.wanted = text
  if not text or found(self) then return text ~= false end
  self.recent = output_of(self):sub(self.from):sub(-#text)
  return false
end

--- What is waited for has come: the next is looked for behind it.
function M.take(self)
  local last = found(self)
  if last then self.from = last + 1 end
  return last ~= nil
end

--- The port of a console: writes print, reads give what was sent, 0 where nothing is left.
function M.port(self)
  return { name = "console",
    write = function(_, _, size, value)
      for _ = 1, size do
        self:put(string.char(value % 256))
        value = math.floor(value / 256)
      end
    end,
    read = function() return self:get() or 0 end }
end

class.define(Console, methods, "input", "output guest from wanted recent parts")

local index = Console.__index
function Console.__index(self, key)
  if key == "output" then return output_of(self) end
  return index[key]
end

M.class, M.methods = Console, methods

return M
