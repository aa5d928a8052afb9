-- SPDX-License-Identifier: MIT
-- luna sweep: a script run for all values of its parameters, by GNU parallel; a table and a picture
-- of what came out.

local say = require "lunavisor.program.say"
local values = require "lunavisor.program.values"

local M = { about = "Run a script over ranges of its arguments, here or on many hosts." }

local EPILOG = [[
Examples:
  luna sweep unit.lua --set size=1..8 --set mode=real,long --jobs 2
  luna sweep walk.lua --set size=4..64*2 --seeds 1..4 --plot pages
  luna sweep unit.lua --set size=1..64:9 --list
  luna sweep unit.lua --set size=1..64:9 --unit 3

VALUES: 1,2,4 or names, 1..64, 0..1:0.25 by steps, 4..4096*2 by factors; \, is a
comma in a value. All are combined, the last changes fastest. A unit is what
`luna run --json` does; the table is DIR/results.csv. Said again, the command
goes on where it was cut off. What is behind -- are the script's arguments.

Status: 0, or 1 where a unit has failed or none has come to an end; 130 after
Ctrl-C; 126 where it cannot begin. The units are run by GNU parallel (Debian:
apt-get install parallel).]]

function M.describe(command)
  command:argument("script", "The script.")
  command:option("--set", "A parameter; may be said again."):argname "NAME=VALUES":count "*"
  command:option("--seeds", "Each unit with each of these, as --seed."):argname "VALUES"
  command:option("--jobs", "Units at once; else one a processor."):argname "N"
    :convert(values.whole("--jobs", 1))
  command:option("--on", "Hosts with luna and the script, a,b or a file of them."):argname "HOSTS"
  command:option("--timeout", "The most that a unit takes."):argname "SECONDS"
    :convert(values.seconds)
  command:option("--accel", "What runs VMs whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
  command:option("--output", "Where all goes; SCRIPT.sweep without it."):argname "DIR"
  command:option("--plot", "Draw this result, to DIR/RESULT.svg."):argname "RESULT"
  command:option("--over", "One or two parameters to draw it over."):argname "NAMES"
  command:option("--label", "What an axis says; may be said again."):argname "NAME=TEXT"
    :count "*"
  command:flag("--retry", "Run units again that have failed.")
  command:flag("--again", "Drop what is there, and begin anew.")
  command:flag("--list", "Show the units, a line each, and run none.")
  command:option("--unit", "Run this one alone; its line to the standard output."):argname "N"
    :convert(values.whole("--unit", 1))
  command:option("--take", "Take lines of units that ran elsewhere; - for the standard input.")
    :argname "FILE"
  command:flag("--do"):hidden(true) -- the script is a unit's word
  command:epilog(EPILOG)
end

-- ---- What runs no units, or one ----

local function show(plan)
  for unit = 1, plan.count do print(("%d\t%s"):format(unit, plan:shell(unit))) end
  return 0
end

local function run_unit(plan, unit)
  if unit > plan.count then
    return say.cannot("--unit: %d, and there are %d", unit, plan.count)
  end
  return require("lunavisor.sweep.unit").run(
    require("lunavisor.sweep.plan").read_word(plan:word(unit)))
end

-- What parallel has been told to run.
local function run_word(word)
  local unit = require("lunavisor.sweep.plan").read_word(word)
  if not unit then return say.cannot "--do: no unit of a sweep" end
  return require("lunavisor.sweep.unit").run(unit, true)
end

local function take(store, from)
  local file, message = io.stdin, nil
  if from ~= "-" then file, message = io.open(from, "rb") end
  if not file then return nil, message end
  local text = file:read "*a"
  if from ~= "-" then file:close() end
  local count, problem = store:take(text or "")
  if not count then return nil, ("%s: %s"):format(from, problem) end
  say.line("%d lines taken", count)
  return true
end

-- ---- The units ----

local Sweep = {}
Sweep.__index = Sweep

-- How far it is, over what it said before, on a terminal alone.
function Sweep.progress(self)
  if not self.terminal then return end
  local done, failed = self.store:count()
  local text = ("%d of %d units"):format(done, self.store.plan.count)
  if failed > 0 then text = text .. (", %d failed"):format(failed) end
  local here = done - self.before
  if here > 0 and done < self.store.plan.count then
    local left = (self.clock() - self.began) / here * (self.store.plan.count - done)
    text = text .. (", %.0f s to go"):format(left)
  end
  io.stderr:write("\rluna: ", text, "\27[K")
end

function Sweep.clear(self)
  if self.terminal then io.stderr:write "\r\27[K" end
end

-- Lua's own Ctrl-C, which may come anywhere.
local function is_interrupt(message)
  return tostring(message):find("interrupted!", 1, true) ~= nil
end

-- Waits until parallel has ended. "end", "none", "busy" or "lost", and the number with it.
function Sweep.wait(self, run)
  while true do
    local ok, what, number = pcall(function()
      local word, with = run:next()
      if word == "tick" then
        self.store:read()
        self:progress()
      end
      return word or "lost", with
    end)
    if not ok then
      if not is_interrupt(what) then error(what, 0) end
      self.interrupted, self.store.at, self.store.rest = true, 0, ""
    elseif what ~= "tick" then
      return what, number
    end
    if self.interrupted then run:stop() end
  end
end

-- Says so where parallel has not tried all units.
function Sweep.judge(self, units, cut, status)
  for _, unit in ipairs(units) do
    if not (self.store.lines[unit] or cut[unit]) then
      local why = not status and "its shell was killed"
        or status > 128 and status < 160 and "it was killed" or "status " .. status
      return say.line("parallel has ended before all was done (%s): %s may tell", why,
        self.store:path "log")
    end
  end
end

-- Runs these units. The lines of those that were cut off; nil, status.
function Sweep.run(self, units)
  local words, plan = {}, self.store.plan
  for i, unit in ipairs(units) do words[i] = plan:word(unit, self.options.on) end
  local engine = require "lunavisor.sweep.engine"
  local run, problem = engine.start(self.store, words, self.options)
  if not run then return nil, say.cannot("%s", problem) end
  self:progress()
  local what, number = self:wait(run)
  run:close()
  self:clear()
  if what == "none" then
    return nil, say.cannot "there is no GNU parallel here (Debian: apt-get install parallel)"
  elseif what == "busy" then
    local busy = require("lunavisor.sweep.store").BUSY
    return nil, say.cannot(busy, self.store.directory, number or "?")
  end
  self.store:read()
  local cut = run:cut(units, self.options.timeout)
  if not self.interrupted then self:judge(units, cut, number) end
  return cut
end

local function command_line()
  local quote, words = require("lunavisor.sweep.plan").quote, { "luna" }
  local args = _G.arg or {}
  for i = 1, #args do
    if args[i] ~= "--again" then words[#words + 1] = quote(args[i]) end
  end
  return table.concat(words, " ")
end

-- ---- What came out ----

local function labels_of(list)
  local labels = {}
  for _, text in ipairs(list or {}) do
    local name, label = text:match "^([^=]+)=(.*)$"
    if not name then return nil, ("--label: NAME=TEXT expected, got %s"):format(text) end
    labels[name] = label
  end
  return labels
end

function Sweep.draw(self)
  local options = self.options
  if not options.plot then return true end
  local svg, problem = require("lunavisor.sweep.picture").draw(self.store, options.plot,
    options.over, self.labels)
  if not svg then return nil, problem end
  return self.store:write(options.plot:gsub("[^%w_.-]", "_") .. ".svg", svg)
end

-- Table, picture, and a line that says what there is.
function Sweep.finish(self, cut)
  local store = self.store
  local count = store.plan.count
  local ok, problem = store:write("results.csv", store:table(cut))
  if not ok then return say.cannot("%s", problem) end
  local done, failed = store:count()
  local lost = 0
  for _ in pairs(cut) do lost = lost + 1 end
  ok, problem = true, nil
  if done > failed then ok, problem = self:draw() end
  local text = ("%d of %d units, %d failed: %s"):format(done + lost, count, failed + lost,
    store:path "results.csv")
  if failed > 0 then text = text .. "; --retry runs those again" end
  say.line("%s", text)
  if done < count then say.line("to go on: %s", command_line()) end
  if not ok then return say.cannot("%s", problem) end
  if self.interrupted then return say.INTERRUPTED end
  return done == count and failed == 0 and 0 or 1
end

local function directory_of(script)
  return script:match "([^/]*)$":gsub("%.lua$", "") .. ".sweep"
end

local function run_all(plan, options)
  local labels, problem = labels_of(options.label)
  if not labels then return say.cannot("%s", problem) end
  local store
  store, problem = require("lunavisor.sweep.store").open(options.output
    or directory_of(options.script), plan, options.again)
  if not store then return say.cannot("%s", problem) end
  local clock = require("lunavisor").clock
  local self = setmetatable({ store = store, options = options, labels = labels, clock = clock,
    began = clock(), before = store:count(),
    terminal = require("lunavisor.binding.backend").stream_is_terminal(2) }, Sweep)
  local cut = {}
  if options.take then
    local ok
    ok, problem = take(store, options.take)
    if not ok then return say.cannot("--take: %s", problem) end
  else
    local units = store:missing(options.retry)
    if #units > 0 then
      local status
      cut, status = self:run(units)
      if not cut then return status end
    end
  end
  return self:finish(cut)
end

--- Runs them; the status.
function M.run(options)
  if options["do"] then return run_word(options.script) end
  if options.script == "-" then
    return say.cannot "each unit reads the script: a file expected, not the standard input"
  end
  local chunk, problem = loadfile(options.script)
  if not chunk then return say.cannot("%s", problem) end
  local plan
  plan, problem = require("lunavisor.sweep.plan").new(options.script, options.set or {},
    options.seeds, options.rest, options.accel)
  if not plan then return say.cannot("%s", problem) end
  if options.over and not options.plot then return say.cannot "--over needs --plot" end
  if options.list then return show(plan) end
  if options.unit then return run_unit(plan, options.unit) end
  require("lunavisor.binding.backend").interrupt_guard()
  local ok, status = pcall(run_all, plan, options)
  if ok then return status end
  if not is_interrupt(status) then error(status, 0) end
  say.line("to go on: %s", command_line())
  return say.INTERRUPTED
end

return M
