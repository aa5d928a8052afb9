-- SPDX-License-Identifier: MIT
-- luna run --stats: exits by kind and device, where the time went, and a profile of guest
-- addresses. What comes is counted anyway; the rest is looked at by a timer, so that a run is not
-- slowed down: at each of its moments where the guest is, and for one moment in SHARE how long it
-- is in the guest and how long with devices and handlers.

local raw = require "lunavisor.binding.backend"
local device = require "lunavisor.device"
local timers = require "lunavisor.vm.timer"
local symbols = require "lunavisor.text.symbols"
local trace = require "lunavisor.exit.trace"
local u64 = require "lunavisor.text.u64"

local clock = raw.clock
local rawget, type = rawget, type

local M = {}

local MOMENT, SHARE = 1e7, 10 -- nanoseconds
local DURATIONS = 4096        -- of which the shortest tell what a call of KVM takes
local LINES = 16              -- addresses of a profile that are told with their source line

-- What all VMs together have: vms, runs, seconds, kinds, devices, accels (all by name), rips,
-- spots, places, inside, outside, entries, durations.
local Totals = {}
Totals.__index = Totals

local function count(set, key, more)
  set[key] = (set[key] or 0) + more
end

-- ---- One VM ----

local Part = {}
Part.__index = Part

--- What a trap's device is called: its name, or where it is.
function M.name_of(trap)
  local dev = trap.device
  local owner = type(dev) == "table" and (device.is(dev) and dev or rawget(dev, "owner"))
  local name = type(owner) == "table" and rawget(owner, "name")
    or type(dev) == "table" and rawget(dev, "name")
  return type(name) == "string" and name or trace.place(trap)
end

function Part.trap(self, trap)
  self.traps[#self.traps + 1] = trap
end

function Part.exit(self, exit)
  count(self.totals.kinds, exit.kind, 1)
end

-- Counts where a vCPU was seen: at a name, and where in what has that name.
local function count_rip(self, rip, name)
  local totals = self.totals
  name = name or u64.hex(rip)
  count(totals.rips, name, 1)
  local spots = totals.spots[name] or { symbols = self.vm.symbols, list = {} }
  totals.spots[name] = spots
  local key = u64.key(rip)
  local spot = spots.list[key] or { rip = rip, count = 0 }
  spots.list[key], spot.count = spot, spot.count + 1
end

-- The source line where a vCPU was seen most often under that name, as a text; nil for none.
local function line_of(spots)
  local most
  for _, spot in pairs(spots.list) do
    if not most or spot.count > most.count or spot.count == most.count
      and u64.lt(spot.rip, most.rip) then most = spot end
  end
  local line = spots.symbols:line(most.rip)
  return line and tostring(line) or nil
end

-- Where a vCPU is, with the name that the VM has for it. Ctrl-C, which raises wherever Lua is, ends
-- the run and not the look alone.
local function sample(self, cpu)
  local ok, rip, name = pcall(function() return cpu.rip, (self.vm.symbols:at(cpu.rip)) end)
  if ok then return count_rip(self, rip, name) end
  if tostring(rip):find("interrupted!", 1, true) then error(rip, 0) end
end

local function sample_all(self)
  if self.cpu then return self.cpu[1] and sample(self, self.cpu) end
  for _, cpu in pairs(self.vm.started) do
    if raw.pause(cpu) then
      sample(self, cpu)
      raw.resume(cpu)
    end
  end
end

local function tick(self)
  if not self.began then return end
  sample_all(self)
  if self.ticked then self.ticked() end
  self.ticks = self.ticks + 1
  self.measures, self.left = self.ticks % SHARE == 0, false
end

function Part.enter(self, cpu)
  self.cpu, self.began, self.left = cpu or false, clock(), false
  if not self.timer then
    self.timer = timers.new(self.vm, MOMENT, function() tick(self) end, MOMENT, true)
  end
end

function Part.leave(self)
  local totals = self.totals
  totals.runs, totals.time = totals.runs + 1, totals.time + clock() - self.began
  self.began = false
end

-- raw.run with two looks at the clock.
local function measured(self, run)
  local totals, places, durations = self.totals, self.places, self.totals.durations
  local number = 0
  return function(cpu, deadline, answer)
    local before = clock()
    if self.left then totals.outside = totals.outside + (before - self.left) end
    local kind, trap, offset, size, value, access = run(cpu, deadline, answer)
    local after = clock()
    totals.inside, totals.entries = totals.inside + (after - before), totals.entries + 1
    self.left = self.measures and after
    durations[number], number = after - before, (number + 1) % DURATIONS
    local place = kind and places[trap]
    if place then place[offset] = (place[offset] or 0) + 1 end
    return kind, trap, offset, size, value, access
  end
end

function Part.entry(self, run)
  if not self.measures then return nil end
  if self.run ~= run then self.run, self.made = run, measured(self, run) end
  return self.made
end

-- raw.next with the places of accesses counted, while something is measured.
function Part.taking(self, take)
  local places = self.places
  return function(vm, deadline)
    local kind, trap, offset, size, value, access, number = take(vm, deadline)
    if kind and kind ~= 0 and self.measures then
      local place = places[trap]
      if place then place[offset] = (place[offset] or 0) + 1 end
    end
    return kind, trap, offset, size, value, access, number
  end
end

-- The exits of one trap.
local function add_trap(self, trap)
  local totals, hits = self.totals, trap.hits
  count(totals.kinds, trap.kind, hits)
  local name = M.name_of(trap)
  count(totals.devices, name, hits)
  for offset, seen in pairs(rawget(self.places, trap.id) or {}) do
    local where = trace.place(trap, offset)
    count(totals.places, name == where and name or name .. ", " .. where, seen)
  end
end

--- The VM is over: what it had goes to the sum of all.
function Part.close(self)
  if not self.traps then return end
  for _, trap in ipairs(self.traps) do add_trap(self, trap) end
  self.traps, self.vm = nil, nil
  self.totals.open[self] = nil
end

-- ---- All of them ----

--- What luna.vm is to be measured by: a kind of vm/meter.lua, with result(). Who measures a VM
--- further gives begin a function that is called at each moment of the timer.
function M.new()
  local totals = setmetatable({ vms = 0, runs = 0, time = 0, inside = 0, outside = 0, entries = 0,
    kinds = {}, devices = {}, accels = {}, rips = {}, spots = {}, places = {}, durations = {},
    open = {} }, Totals)
  function totals.begin(vm, ticked)
    local places = setmetatable({}, { __index = function(set, trap)
      if trap == 0 then return nil end
      local made = {}
      rawset(set, trap, made)
      return made
    end })
    local part = setmetatable({ vm = vm, totals = totals, traps = {}, places = places, ticks = 0,
      measures = true, began = false, cpu = false, left = false, ticked = ticked or false }, Part)
    totals.vms = totals.vms + 1
    count(totals.accels, vm.accel, 1)
    totals.open[part] = true
    return part
  end
  return totals
end

-- By name, as a list { name, count, share }, the most frequent first.
local function ranked(set, scale)
  local list, sum = {}, 0
  for name, number in pairs(set) do
    if number > 0 then list[#list + 1] = { name = name, count = number } end
    sum = sum + number
  end
  table.sort(list, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.name < b.name
  end)
  for _, one in ipairs(list) do one.share = one.count / (scale or sum) end
  return list
end

-- The addresses, with the line of each that is likely to be looked at.
local function profile_of(totals)
  local list = ranked(totals.rips)
  for i = 1, math.min(#list, LINES) do list[i].line = line_of(totals.spots[list[i].name]) end
  return list
end

-- What a call of KVM takes: what the quicker tenth of the calls that were measured took.
local function call_of(durations)
  local list = {}
  for _, one in pairs(durations) do list[#list + 1] = one end
  if #list == 0 then return 0 end
  table.sort(list)
  return list[math.ceil(#list / 10)]
end

-- The shares of the time that vCPUs were run: in the guest, in KVM and in Lua.
local function shares(totals)
  local all = totals.inside + totals.outside
  if all == 0 then return nil end
  local calls = 0
  if totals.accels.kvm and not totals.accels.soft then
    calls = math.min(totals.inside, call_of(totals.durations) * totals.entries)
  end
  return { guest = (totals.inside - calls) / all, kvm = calls / all, lua = totals.outside / all,
    call = calls > 0 and call_of(totals.durations) / 1e9 or nil }
end

--- What was measured so far: vms, runs, seconds, exits, kinds, devices, profile and places (lists
--- of { name =, count =, share = }, in profile also line = where there is one), time ({ guest =,
--- kvm =, lua = }, shares; nil where no run of a single vCPU was measured).
function Totals.result(totals)
  for part in pairs(totals.open) do
    for i = #part.traps, 1, -1 do
      if part.traps[i].hits > 0 then add_trap(part, part.traps[i]) end
    end
    part.traps = {}
  end
  local kinds, exits = ranked(totals.kinds), 0
  for _, one in ipairs(kinds) do exits = exits + one.count end
  return { vms = totals.vms, runs = totals.runs, seconds = totals.time / 1e9, exits = exits,
    kinds = kinds, devices = ranked(totals.devices, exits), places = ranked(totals.places),
    profile = profile_of(totals), time = shares(totals), accels = totals.accels }
end

-- ---- As a text ----

local function percent(share)
  return ("%5.1f %%"):format(100 * share)
end

local function table_of(lines, title, list, most)
  if #list == 0 then return end
  lines[#lines + 1] = title
  for i = 1, math.min(#list, most) do
    lines[#lines + 1] = ("  %10d  %s  %s"):format(list[i].count, percent(list[i].share),
      symbols.joined(list[i].name, list[i].line))
  end
  if #list > most then lines[#lines + 1] = ("  and %d more"):format(#list - most) end
end

--- The lines of a result.
function M.text(result)
  local on = {}
  for name in pairs(result.accels) do on[#on + 1] = name end
  table.sort(on)
  local lines = { ("%d VM%s on %s, %d run%s, %.3f s"):format(result.vms,
    result.vms == 1 and "" or "s", #on > 0 and table.concat(on, " and ") or "nothing", result.runs,
    result.runs == 1 and "" or "s", result.seconds) }
  local time = result.time
  if time then
    local kvm = time.call and ("  %s in KVM (a call takes %.1f us)\n"):format(percent(time.kvm),
      time.call * 1e6) or ""
    lines[#lines + 1] = ("Time:\n  %s in the guest\n%s  %s in Lua"):format(percent(time.guest), kvm,
      percent(time.lua))
  end
  table_of(lines, "Exits by kind:", result.kinds, 12)
  table_of(lines, "Exits by device:", result.devices, 12)
  table_of(lines, "Guest addresses, by samples:", result.profile, 12)
  return table.concat(lines, "\n")
end

return M
