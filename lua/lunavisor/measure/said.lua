-- SPDX-License-Identifier: MIT
-- What guests print: the last of what is written to the serial ports and debug consoles of a VM,
-- devices of the kit and those that a script has made by hand at the ports of a PC.

local device = require "lunavisor.device"
local stats = require "lunavisor.measure.stats"
local stream = require "lunavisor.device.models.stream"

local M = {}

local KEPT = 65536 -- bytes of each

-- What takes characters by itself, by the name of the model: a device with a `writer`.
local MODELS = { uart16550 = true, debug_console = true }

-- Ports that take them on a PC: whether there is a UART, whose first port is a divisor while bit 7
-- of its fourth is set (PC16550D, 8.3).
local PORTS = { [0x3f8] = "uart", [0x2f8] = "uart", [0x3e8] = "uart", [0x2e8] = "uart",
  [0xe9] = "console", [0x402] = "console" }
local LCR, DLAB = 3, 128

local CHARACTERS = {} -- by what is written
for value = 0, 255 do CHARACTERS[value] = string.char(value) end

local Said = {}
Said.__index = Said

--- What a VM says, to be told of its devices.
function M.new()
  return setmetatable({ list = {}, by_name = {}, undo = {} }, Said)
end

--- A place for text: write(text) puts it there.
function Said.place(self, name)
  local ring = self.by_name[name]
  if not ring then
    ring = stream.ring(KEPT)
    self.list[#self.list + 1], self.by_name[name] = { name = name, ring = ring }, ring
  end
  return ring
end

--- A device of the kit has come to the VM.
function Said.attach(self, dev, name)
  if not MODELS[rawget(dev, "class").layout.name] then return end
  local writer = dev.writer
  local ring = self:place(name)
  dev.writer = function(text)
    ring:write(text)
    return writer(text)
  end
end

-- Puts make(own) in the place of a function `own` of a device made by hand, until undone.
local function hook(self, dev, name, make)
  local own, raw = dev[name], rawget(dev, name)
  if type(own) ~= "function" then return end
  local made = make(own)
  rawset(dev, name, made)
  self.undo[#self.undo + 1] = function()
    if rawget(dev, name) == made then rawset(dev, name, raw) end
  end
end

local function text_port(trap)
  for port, kind in pairs(PORTS) do
    if port >= trap.first and port < trap.first + trap.length then return port, kind end
  end
end

--- A device has a range.
function Said.trap(self, trap)
  local dev = trap.device
  if trap.kind ~= "pio" or type(dev) ~= "table" or device.is(dev) or dev.memory then return end
  if device.is(rawget(dev, "owner")) then return end
  local port, kind = text_port(trap)
  if not port then return end
  local at, latched, ring = port - trap.first, false, nil
  local function put(text)
    ring = ring or self:place(stats.name_of(trap))
    ring:write(text)
  end
  hook(self, dev, "write", function(own)
    return function(d, offset, size, value, ...)
      if size ~= 1 then
        return own(d, offset, size, value, ...)
      elseif offset == at then
        if not latched then put(CHARACTERS[value]) end
      elseif kind == "uart" and offset == at + LCR then
        latched = value >= DLAB
      end
      return own(d, offset, size, value, ...)
    end
  end)
  hook(self, dev, "write_block", function(own)
    return function(d, offset, size, data, ...)
      if offset == at and size == 1 and not latched then put(data) end
      return own(d, offset, size, data, ...)
    end
  end)
end

--- The devices made by hand are as before.
function Said.close(self)
  for i = #self.undo, 1, -1 do self.undo[i]() end
  self.undo = {}
end

--- What was said: a list of { name, text, lost }, `lost` bytes being left out before the text.
function Said.result(self)
  local found = {}
  for _, one in ipairs(self.list) do
    local text = one.ring:text()
    if #text > 0 then
      found[#found + 1] = { name = one.name, text = text, lost = one.ring.lost }
    end
  end
  return found
end

return M
