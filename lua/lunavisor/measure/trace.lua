-- SPDX-License-Identifier: MIT
-- luna run --trace: every exit, access to a device and change of a line, as events of the format
-- that Chrome and Perfetto read ("Trace Event Format"): a process is a VM, its threads are the
-- vCPUs, each with the time that it is out of the guest for a device, and the devices. Moments are
-- microseconds; nanoseconds are written with e-3 behind them, which needs no division.

local raw = require "lunavisor.binding.backend"
local dump = require "lunavisor.device.dump"
local json = require "lunavisor.program.json"
local lines = require "lunavisor.device.line"
local meters = require "lunavisor.vm.meter"
local stats = require "lunavisor.measure.stats"
local u64 = require "lunavisor.text.u64"

local clock = raw.clock
local type = type

local M = {}

local WRITE = 2      -- luna_access
local HELD = 2048    -- texts that wait to be written
local DEVICES = 1000 -- behind it, the threads are devices

-- ---- The file ----

local Trace = {}
Trace.__index = Trace

local function flush(self)
  self.file:write(table.concat(self.texts, "", 1, self.count))
  self.count = 0
end

local function put(self, text)
  local count = self.count + 1
  self.texts[count], self.count = text, count
  if count >= HELD then flush(self) end
end

local function name_track(self, pid, tid, name)
  self.names[#self.names + 1] = ('{"ph":"M","pid":%d,"tid":%d,"name":"thread_name",'
    .. '"args":{"name":%s}}'):format(pid, tid, json.encode(name))
end

-- ---- One VM ----

local Part = {}
Part.__index = Part

local function track_of(self, name)
  local track = self.tracks[name]
  if not track then
    self.last = self.last + 1
    track = self.last
    self.tracks[name] = track
    name_track(self.trace, self.pid, track, name)
  end
  return track
end

local PLACES = { pio = "port", mmio = "gpa", msr = "MSR" }
local SLICE = '{"ph":"X","pid":%d,"tid":%d,"name":"%s %s 0x%x","ts":'

local function vcpu_track(self, id)
  if not self.vcpus[id] then
    self.vcpus[id] = true
    name_track(self.trace, self.pid, id + 1, "vcpu " .. id)
  end
  return id + 1
end

-- The beginnings of the two events of an access, by 2 * offset + whether it is a write: as made for
-- the vCPU `id`, of which there is mostly one.
local function heads_of(self, trap, id)
  local tracks = { vcpu_track(self, id), track_of(self, stats.name_of(trap)) }
  local heads = {}
  for i, track in ipairs(tracks) do
    heads[i] = setmetatable({}, { __index = function(set, key)
      local head = SLICE:format(self.pid, track, key % 2 == 1 and "write" or "read",
        PLACES[trap.kind], trap.first + math.floor(key / 2))
      rawset(set, key, head)
      return head
    end })
  end
  return heads
end

--- The traps are known by number, for each vCPU that comes to them.
function Part.trap(self, trap)
  self.traps[trap.id] = setmetatable({}, { __index = function(set, id)
    local heads = heads_of(self, trap, id)
    rawset(set, id, heads)
    return heads
  end })
end

-- A vCPU was out of the guest, and a device asked, from `at` until `now`.
local function put_access(self, id, at, now, trap, offset, access, value)
  local trace, heads = self.trace, self.traps[trap]
  if not heads then return end
  heads = heads[id]
  local key = access == WRITE and 2 * offset + 1 or 2 * offset
  local time = at - trace.start .. 'e-3,"dur":' .. now - at .. "e-3"
  if type(value) ~= "number" then value = value == nil and "null" or json.encode(u64.hex(value)) end
  put(trace, heads[1][key] .. time .. "},\n" .. heads[2][key] .. time
    .. ',"args":{"value":' .. value .. "}},\n")
end

-- raw.run with what comes of it noted: an access, when the next entry brings its answer.
function Part.entry(self, run)
  if self.run == run then return self.made end
  local at, id, last, place, kind_of, given
  local function finish(now, answer)
    if at then put_access(self, id, at, now, last, place, kind_of, answer or given) end
    at = nil
  end
  self.run, self.finish.entry = run, finish
  self.made = function(cpu, deadline, answer)
    if at then finish(clock(), kind_of ~= WRITE and answer or nil) end
    local kind, trap, offset, size, value, access = run(cpu, deadline, answer)
    if kind and trap ~= 0 then
      at, id, last, place, kind_of, given = clock(), cpu.id, trap, offset, access, nil
      if access == WRITE then given = value end
    end
    return kind, trap, offset, size, value, access
  end
  return self.made
end

-- What was under way is over.
function Part.leave(self)
  local now, finish = clock(), self.finish
  if finish.entry then finish.entry(now) end
  if finish.taking then finish.taking(now) end
end

-- raw.next, likewise: what it gave out last is over when it is called again.
function Part.taking(self, take)
  Part.leave(self) -- a vCPU that was run by entry's is run elsewhere now
  local at, id, last, place, kind_of, given
  local function finish(now)
    if at then put_access(self, id, at, now, last, place, kind_of, given) end
    at = nil
  end
  self.finish.taking = finish
  return function(vm, deadline)
    if at then finish(clock()) end
    local kind, trap, offset, size, value, access, number = take(vm, deadline)
    if kind and kind ~= 0 then
      at, id, last, place, kind_of, given = clock(), number, trap, offset, access, nil
      if access == WRITE then given = value end
    end
    return kind, trap, offset, size, value, access, number
  end
end

--- An exit that no device takes.
function Part.exit(self, exit)
  put(self.trace, ('{"ph":"i","s":"t","pid":%d,"tid":%d,"name":"%s","ts":%de-3,'
    .. '"args":{"exit":%s}},\n'):format(self.pid, vcpu_track(self, exit.cpu.id), exit.kind,
    clock() - self.trace.start, json.encode(tostring(exit))))
end

local function put_level(self, name, level)
  put(self.trace, ('{"ph":"C","pid":%d,"name":%s,"ts":%de-3,"args":{"level":%d}},\n'):format(
    self.pid, json.encode(name), clock() - self.trace.start, level and 1 or 0))
end

--- The lines of a device are counters that are 0 or 1.
function Part.attach(self, dev, name)
  for _, about in ipairs(dump.layout_of(dev).lines) do
    local line = dev[about.name]
    if getmetatable(line) == lines.class then
      local title = name .. "." .. about.name
      line:connect(meters.tap("the trace", function(level) put_level(self, title, level) end))
    end
  end
end

-- ---- All of them ----

--- Traces all VMs that are made from here on to a file: a kind of vm/meter.lua, with close(). nil,
--- message where the file cannot be written.
function M.new(path)
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local self = setmetatable({ file = file, texts = {}, count = 0, names = {}, vms = 0,
    start = clock() }, Trace)
  file:write '{"displayTimeUnit":"ns","traceEvents":[\n'
  function self.begin(vm)
    self.vms = self.vms + 1
    self.names[#self.names + 1] = ('{"ph":"M","pid":%d,"name":"process_name",'
      .. '"args":{"name":"vm %d on %s"}}'):format(self.vms, self.vms, vm.accel)
    return setmetatable({ trace = self, pid = self.vms, traps = {}, tracks = {}, vcpus = {},
      last = DEVICES, id = 0, run = false, finish = {}, made = false }, Part)
  end
  return self
end

--- Writes the rest. true, or nil, message.
function Trace.close(self)
  flush(self)
  self.file:write(table.concat(self.names, ",\n"), "\n]}\n")
  return self.file:close()
end

return M
