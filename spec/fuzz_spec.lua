-- SPDX-License-Identifier: MIT
-- Random calls of the whole API for LUNA_FUZZ_SECONDS (2): methods and fields of open, closed and
-- foreign objects, in coroutines, handlers and finalizers, while objects are closed and collected.
-- No crash, no hang, no message that blames a line of the library, and nothing that is left.
-- LUNA_SEED repeats a run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local misuse = require "spec.support.misuse"

local SECONDS = tonumber(os.getenv "LUNA_FUZZ_SECONDS" or "") or 2
local CALLS = 150 -- in a world, before the next one

local random = misuse.random

-- What would wait for ever: each is made to end by itself.
local runs = { run = true, step = true, trace = true, poll = true, wait = true, join = true,
  read = true }

-- Calls fn when the object is collected.
local function finalizer(fn)
  if not helper.jit then return setmetatable({}, { __gc = fn }) end
  local proxy = rawget(_G, "newproxy")(true)
  getmetatable(proxy).__gc = fn
  return proxy
end

-- All that can be reached in two VMs, so that objects of one come to calls of the other.
local function make_world()
  local all = misuse.objects()
  for _, one in ipairs(misuse.objects()) do
    one.name = "other " .. one.name
    all[#all + 1] = one
  end
  return all
end

local function pick(all)
  return all[random(#all)]
end

local function end_soon(all)
  for _, one in ipairs(all) do
    local object = one.object
    if one.name:match "cpu$" and not one.name:find "closed" then
      pcall(function() object:interrupt() end)
    elseif one.name:match "vm$" and not one.name:find "closed" then
      pcall(function() object:timer(0.001, function() object:stop() end) end)
    end
  end
end

local function call_method(all, check)
  local one = pick(all)
  local methods = misuse.methods_of(one.object) or {}
  local names = misuse.names_of(methods, "function")
  if #names == 0 then return end
  local name = names[random(#names)]
  if name == "close" and random(8) > 1 then return end
  if one.name:match "eventfd$" then pcall(one.object.write, one.object, 1) end
  local list = misuse.arguments(all, name)
  table.insert(list, 1, one.object)
  list.n = list.n + 1
  if runs[name] then end_soon(all) end
  check(one.name .. ":" .. name, methods[name], list)
end

local function call_library(all, check)
  local names = { "vm", "buffer", "disasm", "hex", "capability", "u64", "live", "clock" }
  local name = names[random(#names)]
  check("luna." .. name, luna[name], misuse.arguments(all))
end

local function touch_field(all, check)
  local one = pick(all)
  local key = misuse.fields[random(#misuse.fields)]
  if random(2) == 1 then
    check(("%s[%s]"):format(one.name, tostring(key)), misuse.get, { one.object, key, n = 2 })
  elseif (getmetatable(one.object) or {}).__newindex and rawget(one.object, key) == nil then
    check(("%s[%s] = x"):format(one.name, tostring(key)), misuse.set,
      { one.object, key, misuse.value(all), n = 3 })
  end
end

-- A handler that does something else, and may yield.
local function set_handler(all, check)
  local vm, depth = pick(all), 0
  if not vm.name:match "vm$" then return end
  local function act()
    depth = depth + 1
    if depth < 3 then call_method(all, check) end
    depth = depth - 1
    if random(4) == 1 and coroutine.isyieldable and coroutine.isyieldable() then
      coroutine.yield()
    end
    return 0
  end
  check(vm.name .. ":pio", vm.object.pio,
    { vm.object, random(256), random(4), { read = act, write = act }, n = 4 })
end

local function in_coroutine(all, check)
  local thread = coroutine.wrap(function() call_method(all, check) end)
  thread()
  if random(2) == 1 then pcall(thread) end -- over, or suspended in a handler
end

-- In the finalizers of LuaJIT 2.1.0-beta3, compiled code that makes garbage may never end.
local function in_finalizer(all, check)
  local jit = rawget(_G, "jit")
  if jit then
    jit.off()
    jit.flush()
  end
  finalizer(function() call_method(all, check) end)
  collectgarbage()
  if jit then jit.on() end
end

local acts = { call_method, call_method, call_method, call_library, touch_field, touch_field,
  set_handler, in_coroutine, in_finalizer }

-- One world; the messages that it was wrong to give.
local function play(found, seed)
  local all = make_world()
  local function check(what, fn, list)
    -- The last of these lines says where it hung or crashed.
    io.write(("begin spec/fuzz_spec.lua: LUNA_SEED=%d, %s\n"):format(seed, what))
    io.flush()
    local message = misuse.wrong(fn, list)
    if message then
      found[what] = ("%s(%s), LUNA_SEED=%d: %s"):format(what, misuse.show(list), seed, message)
    end
  end
  for _ = 1, CALLS do acts[random(#acts)](all, check) end
end

helper.kvm("any calls of the API", function()
  it("end as they should, and leave nothing", function()
    if helper.stressed then pending "a world takes minutes with the collector always at work" end
    local first = tonumber(os.getenv "LUNA_SEED" or "") or os.time() % 1000000
    local finish, found, worlds = luna.clock() + SECONDS, {}, 0
    repeat
      local seed = first + worlds
      misuse.begin(seed)
      play(found, seed)
      helper.clean()
      worlds = worlds + 1
    until luna.clock() >= finish or next(found)
    io.write(("random calls of the API under %s: %d worlds from LUNA_SEED=%d on\n")
      :format(helper.engine, worlds, first))
    local texts = {}
    for _, message in pairs(found) do texts[#texts + 1] = message end
    table.sort(texts)
    assert.equal("", table.concat(texts, "\n"))
  end)
end)
