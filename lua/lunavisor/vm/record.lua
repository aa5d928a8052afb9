-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: a recording of what its guest does with devices.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local device = require "lunavisor.device"
local deferred = require "lunavisor.deferred"
local recorder = deferred "lunavisor.device.recorder"
local sorted = require "lunavisor.text.sorted"
local trace = require "lunavisor.exit.trace"

local open = class.opener(class.class "vm")
local M = {}

--- Records a device that is attached.
function M.add(vm, name, entry)
  local where = {}
  for _, claimed in ipairs(entry.claims) do where[claimed.place.key] = claimed.trap end
  recorder.add(vm.recording, name, entry.dev, where)
end

-- Devices made by hand, by their traps; a device may have several.
local function add_hands(vm)
  local ids = {}
  for id in pairs(vm.traps) do ids[#ids + 1] = id end
  table.sort(ids)
  for _, id in ipairs(ids) do
    local trap = vm.traps[id]
    local dev = trap.device
    local kit = type(dev) == "table" and (device.is(dev) or device.is(rawget(dev, "owner")))
    if not kit and not dev.memory then
      recorder.add_hand(vm.recording, rawget(dev, "name") or trace.place(trap), dev, trap,
        vm.clock)
    end
  end
end

--- Adds the method.
function M.add_to(methods)
  --- Writes to a file all that comes to the VM's devices from here on, and what they answer and do
  --- of it: with accesses of the guest, the levels of inputs, time, data of DMA and calls of the
  --- devices' own methods, so that t.replay can do it all again without the VM. Devices that are
  --- attached later are in it from then on. Exits that no device takes are in it for people.
  --- Returns the recording, whose close() ends it, as closing the VM does; nil, message, code where
  --- the file cannot be written.
  function methods.record(self, path)
    open(self)
    if type(path) ~= "string" then
      error(("vm:record: the path of a file expected, got %s"):format(class.describe(path)), 2)
    elseif self.recording then
      error(("vm:record: this VM records already, to %s"):format(self.recording.path), 2)
    end
    local made, message, code = recorder.new(path)
    if not made then return check.result(nil, message, code) end
    self.recording = made
    made.ended = function() self.recording = false end
    local entries = self.attached.entries
    for _, name in ipairs(sorted(entries)) do M.add(self, name, entries[name]) end
    add_hands(self)
    return made
  end
end

return M
