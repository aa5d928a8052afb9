-- SPDX-License-Identifier: MIT
-- luna report: what a page (page.lua) tells of a run. Each VM is counted by stats.lua; to that come
-- a timeline, what its guest said, and, when it is closed or the run ends, how all of it stands.
-- The first exits have their exact moments; of the rest, which would cost too much, is known how
-- many came from one moment of the statistics' timer to the next.

local raw = require "lunavisor.binding.backend"
local ending = require "lunavisor.measure.ending"
local meters = require "lunavisor.vm.meter"
local page = require "lunavisor.measure.page"
local said = require "lunavisor.measure.said"
local stats = require "lunavisor.measure.stats"
local timelines = require "lunavisor.measure.timeline"

local clock = raw.clock

local M = {}

local EXACT = 4096   -- exits whose moments are known
local BUCKETS = 2000 -- of a timeline
local VMS = 16       -- that a page has, the last ones
local PAUSE = 1e6    -- nanoseconds between two looks at how many exits came

-- ---- One VM ----

local Part = {}
Part.__index = Part

-- What a trap's exits are added to; known when it has its name, at its first exit.
local function series_of(entry)
  entry.series = entry.series or entry.part.timeline:of(stats.name_of(entry.trap))
  return entry.series
end

--- A device has a range.
function Part.trap(self, trap)
  self.inner:trap(trap)
  self.said:trap(trap)
  local entry = { trap = trap, seen = 0, series = false, part = self }
  self.entries[#self.entries + 1], self.by_id[trap.id] = entry, entry
end

-- Adds what came since the last time.
local function count(self, now)
  local entries, from, kept = self.entries, self.counted, 0
  for i = 1, #entries do
    local entry = entries[i]
    local hits = entry.trap.hits
    if hits > entry.seen then
      self.timeline:spread(series_of(entry), from, now, hits - entry.seen)
      entry.seen = hits
    end
    entries[i] = nil
    if not entry.trap.closed then
      kept = kept + 1
      entries[kept] = entry
    end
  end
  self.counted = now
end

local function begin_timeline(self)
  local now = clock()
  self.timeline, self.runs = timelines.new(now, BUCKETS), timelines.new(now, BUCKETS)
  self.running, self.counted = self.runs:of "running", now
end

function Part.enter(self, cpu)
  if not self.timeline then begin_timeline(self) end
  self.began, self.over = clock(), false
  return self.inner:enter(cpu)
end

function Part.leave(self, ended)
  self.inner:leave()
  if ended ~= nil then self.ended = ended end
  local now = clock()
  self.over = now
  self.runs:spread(self.running, self.began, now, now - self.began)
  if now - self.counted >= PAUSE then count(self, now) end
end

-- An exit that a device takes has come.
local function note(self, id)
  local entry = self.by_id[id]
  if not entry then return end
  self.left, entry.seen = self.left - 1, entry.seen + 1
  self.timeline:add(series_of(entry), clock(), 1)
end

function Part.entry(self, run)
  run = self.inner:entry(run) or run
  if self.left <= 0 then return run end
  if self.run == run then return self.made end
  self.run, self.made = run, function(cpu, deadline, answer)
    local kind, trap, offset, size, value, access = run(cpu, deadline, answer)
    if kind and trap ~= 0 and self.left > 0 then note(self, trap) end
    return kind, trap, offset, size, value, access
  end
  return self.made
end

function Part.taking(self, take)
  take = self.inner:taking(take)
  if self.left <= 0 then return take end
  return function(vm, deadline)
    local kind, trap, offset, size, value, access, number = take(vm, deadline)
    if kind and kind ~= 0 and self.left > 0 and trap ~= 0 then note(self, trap) end
    return kind, trap, offset, size, value, access, number
  end
end

-- Kinds that devices take, too.
local TAKEN = { pio = true, mmio = true, msr = true }

--- An exit that no device takes.
function Part.exit(self, exit)
  self.inner:exit(exit)
  if not self.timeline then begin_timeline(self) end
  local kind = exit.kind
  self.timeline:add(self.timeline:of(TAKEN[kind] and kind .. " without a device" or kind), clock(),
    1)
end

function Part.attach(self, dev, name)
  self.said:attach(dev, name)
end

--- The VM is over, or the run: what there is to tell of it, once and for all.
function Part.close(self)
  if self.facts then return end
  if self.timeline then count(self, self.over or clock()) end
  self.facts = ending.look(self.vm, self.ended)
  self.inner:close()
  self.said:close()
  self.facts.stats, self.facts.said = self.totals:result(), self.said:result()
  self.facts.timeline, self.facts.runs = self.timeline, self.runs
  self.facts.entries = self.totals.entries
  self.vm, self.entries, self.by_id = nil, {}, {}
end

-- The page has no room for this VM: nothing more is looked at.
local function drop(self)
  self.said:close()
  if self.inner.timer then self.inner.timer:close() end
  self.vm, self.inner, self.entries, self.by_id, self.left = nil, false, {}, {}, 0
  setmetatable(self, nil)
end

local function new_part(vm)
  local totals = stats.new()
  local part = setmetatable({ vm = vm, totals = totals, said = said.new(), entries = {},
    by_id = {}, left = EXACT, timeline = false, runs = false, running = false, counted = 0,
    began = 0, over = false, run = false, made = false, facts = false }, Part)
  part.inner = totals.begin(vm, function() count(part, clock()) end)
  return part
end

-- ---- All of them ----

local Report = {}
Report.__index = Report

--- Tells of all VMs that are made from here on, in a file: a kind of vm/meter.lua. about: title,
--- what is run, and version, what runs it. nil, message where the file cannot be written.
function M.new(path, about)
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local self = setmetatable({ file = file, parts = {}, vms = 0, first = clock(), date = os.time(),
    title = about.title, version = about.version, said = said.new() }, Report)
  function self.begin(vm)
    self.vms = self.vms + 1
    if #self.parts == VMS then drop(table.remove(self.parts, 1)) end
    local part = new_part(vm)
    self.parts[#self.parts + 1] = part
    return part
  end
  return self
end

--- Something that no VM's device prints, such as what a process writes.
function Report.say(self, name, text)
  self.said:place(name):write(text)
end

--- Writes the page, of what has been until now. outcome: how the run has ended, a table of status,
--- text and detail; nil for nothing about it. true, or nil, message.
function Report.close(self, outcome)
  meters.remove(self)
  local facts = { title = self.title, version = self.version, date = self.date,
    seconds = (clock() - self.first) / 1e9, outcome = outcome, vms = {}, made = self.vms,
    said = self.said:result() }
  for i, part in ipairs(self.parts) do
    part:close()
    facts.vms[i] = part.facts
  end
  local ok, message = self.file:write(page.html(facts))
  if ok then return self.file:close() end
  self.file:close()
  return nil, message
end

return M
