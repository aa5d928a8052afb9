-- SPDX-License-Identifier: MIT
-- A recording's events, one after the other, to the devices that are there: with a check of what
-- they answer and do, or written down as it is now.

local compare = require "lunavisor.testing.compare"
local players = require "lunavisor.testing.player"
local recorder = require "lunavisor.device.recorder"
local trace = require "lunavisor.exit.trace"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Saying where ----

-- 1204567 as "1,204,567"
local function thousands(number)
  local text = ("%d"):format(number):reverse():gsub("%d%d%d", "%0,"):reverse()
  return (text:gsub("^,", ""))
end

local function shown(value)
  return u64.exact(value) ~= nil and u64.hex(value) or tostring(value)
end

local places = {
  r = function(event, player) return ("access %%s (read of %s)"):format(player:name(event)) end,
  w = function(event, player)
    return ("access %%s (write of %s to %s)"):format(shown(event.value), player:name(event))
  end,
  b = function(event, player) return ("access %%s (block from %s)"):format(player:name(event)) end,
  B = function(event, player) return ("access %%s (block to %s)"):format(player:name(event)) end,
  f = function() return "after access %s, when time had passed" end,
  i = function(event) return ("after access %%s, when input %s changed"):format(event.name) end,
  m = function(event) return ("after access %%s, in a call of %s"):format(event.name) end,
  s = function(event) return ("after access %%s, when a script set %s"):format(event.name) end,
}
places.v, places.p, places.P = places.s, places.s, places.s
function places.h(event) return ("behind access %%s, with buffer %s"):format(event.name) end

local function place(run)
  local event = run.event
  local text = event and places[event.op](event, run.player) or "at the end, after access %s"
  return text:format(thousands(run.count))
end

local function differs(text, ...)
  error({ difference = text:format(...) }, 0)
end

-- ---- Checking ----

-- What a device has done and the recording has not.
local function check_rest(run, player)
  local text = player:take()
  if text then
    differs("%s: %s: %s, and did not", place(run), player.about.name, players.effect(text))
  end
end

local function begin(run, event, player)
  if event.op ~= "i" then check_rest(run, player) end
  run.event, run.player = event, player
end

local check = {}

function check.r(run, event, player)
  begin(run, event, player)
  local value = player:act(event, run.moment)
  if value ~= event.value then
    differs("access %s: read of %s gave %s, was %s", thousands(run.count), player:name(event),
      shown(value), shown(event.value))
  end
end

function check.w(run, event, player)
  begin(run, event, player)
  player:act(event, run.moment)
end

for op in ("i f B s v p P"):gmatch "%S" do check[op] = check.w end

-- The first page of which two lists of digests differ.
local function first_page(one, other)
  local list, least = {}, math.huge
  for at, digest in one:gmatch "(%x+):(%x+)" do list[at] = digest end
  for at, digest in other:gmatch "(%x+):(%x+)" do
    if list[at] ~= digest then least = math.min(least, tonumber(at, 16)) end
    list[at] = nil
  end
  for at in pairs(list) do least = math.min(least, tonumber(at, 16)) end
  return least
end

function check.h(run, event, player)
  begin(run, event, player)
  local now = player:act(event, run.moment)
  if now ~= event.digests then
    differs("at the end, behind access %s, buffer %s of %s is not as it was, from the page at 0x%x "
      .. "on; what was written through its pointer or an address of the guest's is not in a "
      .. "recording",
      thousands(run.count), event.name, player.about.name, first_page(now, event.digests))
  end
end

function check.b(run, event, player)
  begin(run, event, player)
  local data = player:act(event, run.moment)
  if data ~= event.data then
    differs("access %s: block from %s differs:\n%s", thousands(run.count), player:name(event),
      compare.bytes(0, tostring(data), event.data))
  end
end

function check.m(run, event, player)
  begin(run, event, player)
  local result = player:act(event, run.moment)
  if result ~= event.result then
    differs("after access %s: %s:%s gave %s, was %s", thousands(run.count), player.about.name,
      event.name, result, event.result)
  end
end

local function effect(run, event, player)
  local text = player:take()
  if text == event.line then return end
  differs("%s: %s: %s, was: %s", place(run), player.about.name,
    text and players.effect(text) or "nothing", players.effect(event.line))
end

check.l, check.d, check.D = effect, effect, effect

-- ---- Writing anew ----

local function keep(run, event) run.out[#run.out + 1] = event.line end

-- Lets the event come, and writes it with what is answered now and what comes of it.
local function again(answered)
  return function(run, event, player)
    run.event, run.player = event, player
    local line = answered(event, player:act(event, run.moment))
    if line then run.out[#run.out + 1] = line end
    for _, one in ipairs(run.players) do
      local text = one:take()
      while text do
        run.out[#run.out + 1] = text
        text = one:take()
      end
    end
  end
end

local function same_line(event) return event.line end
local function nothing() end

local renew = {
  r = again(function(event, value)
    return (event.line:gsub("^(r%d+ %x+ %d) %x+", "%1 " .. recorder.hex(value)))
  end),
  m = again(function(event, result)
    return event.line:sub(1, #event.line - #event.result) .. result
  end),
  b = again(function(event, data)
    return (event.line:gsub("^(b%d+ %x+ %d) %x+", "%1 " .. recorder.bytes(data)))
  end),
  h = again(function(event, list)
    return event.line:sub(1, #event.line - #event.digests) .. list
  end),
  w = again(same_line), B = again(same_line), i = again(same_line), s = again(same_line),
  p = again(same_line), P = again(same_line), v = again(same_line),
  f = again(nothing),
  l = nothing, d = nothing, D = nothing, options = nothing, state = nothing,
  device = function(run, _, player)
    local about = player.about
    recorder.head({ number = about.number, clock = player.bus.clock }, { name = about.kind,
      spec = player.bus.places.layout }, about.clock, about.name, player.dev,
      function(line) run.out[#run.out + 1] = line end)
  end,
}

-- ---- Driving ----

-- Whose an event is; nil for nobody's here, and for what comes of itself as the device in whose
-- event it came is here too.
local function player_of(run, event)
  local player = run.by[event.device]
  if player and event.above and run.by[event.above] then return nil end
  return player
end

local accesses = { r = true, w = true, b = true, B = true }
local outermost = { r = true, w = true, b = true, B = true, f = true, m = true, s = true,
  v = true, p = true, P = true, h = true }

local function step(run, event)
  local op = event.op
  local fn = run.way[op]
  if op == "@" then run.moment = event.moment end
  if op == "f" then
    if run.out then keep(run, event) end
    for _, player in ipairs(run.players) do
      if player.about.clock == event.clock and player.bus.clock then fn(run, event, player) end
    end
    return
  end
  local player = fn and event.device and player_of(run, event)
  if player then return fn(run, event, player) end
  if run.out then keep(run, event) end
end

local function drive(run, events, stop)
  for i = 1, #events do
    local event = events[i]
    local op = event.op
    if outermost[op] and run.count >= stop then return end
    if accesses[op] then run.count = run.count + 1 end
    step(run, event)
  end
  run.event = nil
end

--- Drives the players of a recording up to behind so many accesses. What is wrong as text, nil
--- where nothing is; and, with `anew`, the lines of the file as it would be now.
function M.run(file, list, stop, anew)
  local run = { players = list, by = {}, count = 0, moment = 0, way = anew and renew or check,
    out = anew and {} or nil }
  for _, player in ipairs(list) do
    run.by[player.about] = player
    local ok, why = player:begin()
    if not ok then return ("%s: %s: %s"):format(file.path, player.about.name, why) end
  end
  local ok, problem = xpcall(function()
    drive(run, file.events, stop)
    for _, player in ipairs(list) do check_rest(run, player) end
  end, function(problem)
    return type(problem) == "table" and problem or trace.back(problem)
  end)
  for _, player in ipairs(list) do player:finish() end
  if ok then return nil, run.out end
  return ("%s: %s"):format(file.path, type(problem) == "table" and problem.difference
    or ("%s raises: %s"):format(place(run), tostring(problem)))
end

return M
