-- SPDX-License-Identifier: MIT
-- --watch: devices whose file changes are replaced while the guest runs, with what they have in
-- their registers. A file returns a device of the kit, or a list whose first is one.

local class = require "lunavisor.class"
local device = require "lunavisor.device"
local say = require "lunavisor.program.say"
local timers = require "lunavisor.vm.timer"
local trace = require "lunavisor.exit.trace"

local M = {}

local PERIOD = 2e8 -- nanoseconds between two looks at the files

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

--- What a file returns: a device of the kit and, where that is in a list, the list, which has its
--- place in a VM. nil, message.
function M.load(path)
  local chunk, message = loadfile(path)
  if not chunk then return nil, message end
  local ok, made = xpcall(chunk, trace.back)
  if not ok then return nil, tostring(made) end
  if device.is(made) then return made, {} end
  if type(made) == "table" and device.is(made[1]) then return made[1], made end
  return nil, path .. ": a device of the kit expected, or a list whose first is one"
end

local Part = {}
Part.__index = Part

local function reload(self, name, entry)
  local made, message = M.load(entry.file)
  if not made then return say.line("%s is as before: %s", name, message) end
  local ok, new, differs = pcall(self.vm.replace, self.vm, entry.dev, made)
  if not ok or not new then
    return say.line("%s is as before: %s", name, say.plain(ok and differs or new))
  end
  local list = {}
  for i, one in ipairs(differs) do list[i] = tostring(one) end
  say.line("%s is read again from %s%s", name, entry.file,
    #list > 0 and "; of its state differs: " .. table.concat(list, ", ") or "")
end

local function look(self)
  local changed = {}
  for name, entry in pairs(self.entries) do
    local text = read_file(entry.file)
    if text and text ~= entry.text then
      entry.text, changed[#changed + 1] = text, name
    end
  end
  table.sort(changed)
  for _, name in ipairs(changed) do reload(self, name, self.entries[name]) end
end

function Part.attach(self, dev, name)
  local file = rawget(dev, "class").layout.info.source:match "^@(.*)"
  if not file or class.is_own { source = "@" .. file } then return end
  if file == self.script then
    return say.line("--watch: %s is in the script itself, which does not run again: give it a "
      .. "file of its own", name)
  end
  self.entries[name] = { dev = dev, file = file, text = read_file(file) }
end

function Part.enter(self)
  if self.timer then return end
  self.timer = timers.new(self.vm, PERIOD, function() look(self) end, PERIOD, true)
end

--- A kind of vm/meter.lua: the devices of all VMs, but those in the file `script`.
function M.new(script)
  return { begin = function(vm)
    return setmetatable({ vm = vm, script = script or false, entries = {}, timer = false }, Part)
  end }
end

return M
