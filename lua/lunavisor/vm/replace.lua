-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: another device in the place of one, while the guest runs.

local attach = require "lunavisor.vm.attach"
local class = require "lunavisor.class"
local device = require "lunavisor.device"
local dump = require "lunavisor.device.dump"
local expose = require "lunavisor.device.expose"
local instances = require "lunavisor.device.instance"
local meters = require "lunavisor.vm.meter"
local record = require "lunavisor.vm.record"
local deferred = require "lunavisor.deferred"
local recorder = deferred "lunavisor.device.recorder"
local trace = require "lunavisor.exit.trace"
local traps = require "lunavisor.exit.trap"

local unpack = rawget(table, "unpack") or unpack

local open = class.opener(class.class "vm")

local function load_file(path)
  local chunk, message = loadfile(path)
  if not chunk then return nil, message end
  local ok, made = xpcall(chunk, trace.back)
  if not ok then return nil, tostring(made) end
  if not device.is(made) then return nil, path .. ": it returns no device" end
  return made
end

-- The targets and inputs of the old device go over to the new one; a line that both have up stays.
local function move_lines(old, new)
  for _, about in ipairs(dump.layout_of(new).lines) do
    local from, to = instances.line(old, about.name), new[about.name]
    if from then
      for _, target in ipairs({ unpack(from.targets) }) do
        if not meters.is_tap(target) then to:connect(target) end
        from:disconnect(target)
      end
    end
  end
  for key, input in pairs(new.inputs) do
    local before = rawget(old.inputs, key)
    if before then
      before.sinks[1], before.targets[1] = input.sinks[1], input.targets[1]
      new.inputs[key] = before
    end
  end
end

local function check_places(entry, new)
  for _, claimed in ipairs(entry.claims) do
    local region = rawget(new.regions, claimed.place.key)
    if not region then
      return nil, ("the new device has no region %s"):format(claimed.place.key)
    elseif region.size ~= claimed.trap.length then
      return nil, ("region %s is 0x%x bytes now and was 0x%x: detach the old device and attach the "
        .. "new one"):format(claimed.place.key, region.size, claimed.trap.length)
    end
  end
  return true
end

local function exchange(vm, entry, new)
  for _, claimed in ipairs(entry.claims) do
    local region = rawget(new.regions, claimed.place.key)
    local place = claimed.place
    expose.leave(place.region, vm.default, place.first)
    place.region, place.device = region, attach.server(new, region)
    if place.kind == "mmio" then expose.enter(region, vm.default, place.first) end
    rawset(claimed.trap, "device", claimed.place.device)
    traps.install(claimed.trap)
  end
  move_lines(entry.dev, new)
  for name in pairs(rawget(entry.dev, "alarms")) do entry.dev:cancel(name) end
  attach.tell(entry.dev, false)
  entry.dev = new
  attach.settle(vm, new)
end

return function(methods)
  --- Puts another device in the place of one that is attached, also while the guest runs (from a
  --- handler or timer): its ports and addresses, what its lines drive, its inputs, and its state by
  --- name. `new`: a class, an instance, or the path of a file that returns one. Returns the new
  --- device and a list of what of the state differs; nil, message, code where the file has a
  --- mistake or the regions are others, and the old one stays.
  function methods.replace(self, dev, new)
    open(self)
    local entry, name = attach.entry(self, dev)
    if not entry then error("vm:replace: that device is not attached to this VM", 2) end
    if type(new) == "string" then
      local made, message = load_file(new)
      if not made then return nil, "vm:replace: " .. message, "file" end
      new = made
    end
    if device.is(new) == "class" then
      new = new { name = dev.name, log = rawget(dev, "logger") }
    else
      new = attach.instance("vm:replace", new)
    end
    local ok, why = check_places(entry, new)
    if not ok then return nil, ("vm:replace: %s: %s"):format(dev.name, why), "state" end
    local differs
    if rawget(dev, "timed") then new:use_clock(dev.clock) else attach.settle(self, new) end
    ok, differs = new:load(dev:save(), { partial = true })
    if not ok then return nil, "vm:replace: " .. differs, "state" end
    if self.recording then recorder.drop(self.recording, dev) end
    exchange(self, entry, new)
    if self.recording then record.add(self, name, entry) end
    if self.meter then self.meter:attach(new, name) end
    return new, differs
  end
end
