-- SPDX-License-Identifier: MIT
-- Recordings done again: devices on buses get what came to them, and the first answer, line or DMA
-- that is not as it was is named; a VM's devices get the state that they had at an access.

local buses = require "lunavisor.testing.bus"
local class = require "lunavisor.class"
local drive = require "lunavisor.testing.drive"
local failures = require "lunavisor.testing.fail"
local players = require "lunavisor.testing.player"
local recorder = require "lunavisor.device.recorder"
local recordings = require "lunavisor.testing.recording"
local sorted = require "lunavisor.text.sorted"

local M = {}

local Replay = class.class "replay"
local mine = class.checker(Replay)
local methods = {}

-- ---- Which devices ----

local function names_of(file)
  local names = {}
  for i, about in ipairs(file.devices) do names[i] = about.name end
  return table.concat(names, ", ")
end

-- The recorded device of a name; else, without `exact`, the only one of a class.
local function find(file, name, kind, exact)
  local found, count = nil, 0
  for _, about in ipairs(file.devices) do
    if about.name == name then return about end
    if about.kind == kind then found, count = about, count + 1 end
  end
  return not exact and count == 1 and found or nil
end

local function player_for(self, name, bus, level)
  if class.of(bus) ~= "bus" then
    error(("t.replay: a bus expected, got %s"):format(class.describe(bus)), level + 1)
  end
  local kind = bus.places and bus.places.layout.name or "-"
  local about = find(self.file, name or bus.name, kind, name ~= nil)
  if not about then
    error(("t.replay: %s has no device %s; it has %s"):format(self.path, name or bus.name,
      names_of(self.file)), level + 1)
  end
  local player, why = players.new(about, bus, self.renewing)
  if not player then
    error(("t.replay: %s: device %s: %s"):format(self.path, about.name, why), level + 1)
  end
  return player
end

local function players_of(self, what, level)
  if what == nil then return {} end
  if class.of(what) == "bus" then return { player_for(self, nil, what, level + 1) } end
  if type(what) ~= "table" or class.of(what) then
    error(("t.replay: a bus, or buses by the names of devices, expected, got %s"):format(
      class.describe(what)), level + 1)
  end
  local list = {}
  for _, name in ipairs(sorted(what)) do
    list[#list + 1] = player_for(self, name, what[name], level + 1)
  end
  return list
end

-- ---- Replaying ----

local function write_anew(self)
  local why, lines = drive.run(self.file, self.players, math.huge, true)
  if why then failures.fail(why) end
  local file = assert(io.open(self.path, "wb"))
  file:write(recorder.TITLE, recorder.VERSION, "\n", table.concat(lines, "\n"), "\n")
  file:write(("end %d\n"):format(self.accesses))
  assert(file:close())
end

--- Drives devices without a VM through a recording (vm:record, bus:record), and fails the test at
--- the first answer, line or DMA that is not as it was. `what`: a bus, whose device is the recorded
--- one of its name, or the only one of its class; or buses by the names of recorded devices; nil:
--- the file is read and checked alone. Class, version, regions and plain options are to be as they
--- were. Where the environment has LUNA_GOLDEN=renew the file is written anew instead, with what
--- the devices do now. Returns a replay: path, accesses, to().
function M.new(path, what)
  if type(path) ~= "string" then
    error(("t.replay: the path of a recording expected, got %s"):format(class.describe(path)), 2)
  end
  local file, message = recordings.read(path)
  if not file then error("t.replay: " .. message, 2) end
  local self = setmetatable({ path = path, file = file, accesses = file.accesses, players = {},
    renewing = os.getenv "LUNA_GOLDEN" == "renew" }, Replay)
  self.players = players_of(self, what, 2)
  if #self.players == 0 then return self end
  if self.renewing then
    write_anew(self)
  else
    local why = drive.run(file, self.players, math.huge)
    if why then failures.fail(why) end
  end
  return self
end

-- ---- Handing over ----

-- A bus with a device like one of a VM, as far as plain options say it.
local function bus_like(dev)
  local kind, own = rawget(dev, "class"), recorder.scalars(dev.options)
  return buses.new(function(options)
    for name, value in pairs(own) do options[name] = value end
    return kind(options)
  end)
end

-- Players for all devices of the recording, and the VM's devices, by player.
local function hand_over(self, vm)
  local list, live = {}, {}
  for _, about in ipairs(self.file.devices) do
    local entry, player = vm.attached.entries[about.name], nil
    for _, own in ipairs(self.players) do if own.about == about then player = own end end
    if about.kind ~= "-" then
      if not entry then
        error(("replay:to: the VM has no device %s"):format(about.name), 3)
      end
      local why
      if not player then player, why = players.new(about, bus_like(entry.dev)) end
      if not player then
        error(("replay:to: %s: device %s: %s"):format(self.path, about.name, why), 3)
      end
      list[#list + 1], live[player] = player, entry.dev
    end
  end
  return list, live
end

--- Drives the devices from the beginning of the recording up to behind so many accesses. With a VM:
--- devices like those that it has under the recorded names, whose states its devices get, so that
--- its guest meets them as they were then; buses that t.replay was given stand for theirs. Fails
--- the test where an answer is not as it was.
function methods.to(self, count, vm)
  mine(self)
  if type(count) ~= "number" or count < 0 or count > self.accesses or count % 1 ~= 0 then
    error(("replay:to: a number of accesses from 0 to %d expected, got %s"):format(self.accesses,
      tostring(count)), 2)
  elseif vm ~= nil and class.of(vm) ~= "vm" then
    error(("replay:to: a VM expected, got %s"):format(class.describe(vm)), 2)
  elseif vm == nil and #self.players == 0 then
    error("replay:to: a VM expected, as t.replay was given no bus", 2)
  end
  local list, live = self.players, {}
  if vm then list, live = hand_over(self, vm) end
  local why = drive.run(self.file, list, count)
  if why then failures.fail(why) end
  for player, dev in pairs(live) do
    local ok, message = dev:load(player.dev:save())
    if not ok then failures.fail("replay:to: " .. message) end
  end
  return self
end

class.define(Replay, methods, "path accesses", "file players renewing")

function Replay.__tostring(self)
  return ("replay of %s (%d accesses)"):format(self.path, self.accesses)
end

M.class, M.methods = Replay, methods

return M
