-- SPDX-License-Identifier: MIT
-- Assertions for luassert about buses, guests, memory, lines and exits; what fails shows only what
-- differs.

local buses = require "lunavisor.testing.bus"
local class = require "lunavisor.class"
local compare = require "lunavisor.testing.compare"
local failures = require "lunavisor.testing.fail"
local luna = require "lunavisor"
local memories = require "lunavisor.testing.memory"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"

local M = {}

local checks = {}

local function is(value, name)
  return class.of(value) == name
end

local function expect(what, value, name)
  if not is(value, name) then
    error(("assert.%s: a %s expected, got %s"):format(what, name, class.describe(value)), 0)
  end
  return value
end

-- The guest of an assertion, the last one made where the script has named none: the guest, and
-- whether it was named.
local function guest_of(what, value)
  if is(value, "guest") then return value, true end
  local last = failures.last()
  if not is(last, "guest") then
    error(("assert.%s: a guest expected, got %s"):format(what, class.describe(value)), 0)
  end
  return last, false
end

-- ---- Devices ----

-- Each check takes the arguments and gives whether it holds, what is said where it does not, and
-- what is said where it does and should not.

--- assert.reads(bus, register or offset, value[, size])
function checks.reads(bus, where, value, size)
  expect("reads", bus, "bus")
  local given = bus:read(where, size)
  local name = type(where) == "number" and ("offset 0x%x"):format(where) or where
  return compare.same(given, value), ("%s reads %s, not %s"):format(name, compare.value(given),
    compare.value(value)), ("%s reads %s"):format(name, compare.value(given))
end

local function level(bus, name, up)
  expect(up and "raises" or "lowers", bus, "bus")
  local is_up = bus.lines[name]
  return is_up == up, ("line %s is %s"):format(tostring(name), is_up and "up" or "down"),
    ("line %s is %s"):format(tostring(name), is_up and "up" or "down")
end

--- assert.raises(bus, line): it is up; assert.lowers(bus, line): it is down.
function checks.raises(bus, name) return level(bus, name, true) end
function checks.lowers(bus, name) return level(bus, name, false) end

local function arrows(list)
  return #list == 0 and "none" or table.concat(list, ", ")
end

--- assert.edges(line, "up", "down", ...): its edges since the last look; or (bus, name, ...)
function checks.edges(first, ...)
  local wanted, found, name = { ... }
  if is(first, "bus") then
    name = table.remove(wanted, 1)
    found = first:edges(name)
  else
    expect("edges", first, "line")
    name, found = first.name, buses.take_edges(first)
    if not found then
      error(("assert.edges: nobody watches line %s; take it from a bus (bus:line), or call "
        .. "t.watch(line) first"):format(first.name), 0)
    end
  end
  for _, edge in ipairs(wanted) do
    if edge ~= "up" and edge ~= "down" then
      error(("assert.edges: 'up' or 'down' expected, got %s"):format(tostring(edge)), 0)
    end
  end
  local same = #wanted == #found
  for i, edge in ipairs(wanted) do same = same and found[i] == edge end
  return same, ("line %s had the edges %s, not %s"):format(name, arrows(found), arrows(wanted)),
    ("line %s had the edges %s"):format(name, arrows(found))
end

local function dma_matches(entry, wanted)
  local gpa, access = wanted.to or wanted.from, wanted.to and "w" or "r"
  if entry.access ~= access or not compare.same(entry.gpa, gpa) then return false end
  if wanted.failed ~= nil and wanted.failed ~= (entry.failed ~= nil) then return false end
  local bytes = wanted.bytes
  return bytes == nil or type(bytes) == "number" and entry.size == bytes or entry.data == bytes
end

--- assert.dma(bus, { to = gpa or from = gpa, bytes = (a string or their number), failed = })
function checks.dma(bus, wanted)
  expect("dma", bus, "bus")
  if type(wanted) ~= "table" or (wanted.to == nil) == (wanted.from == nil) then
    error("assert.dma: { to = gpa, bytes = } or { from = gpa, bytes = } expected", 0)
  end
  local seen = {}
  for _, entry in ipairs(bus.dma_log) do
    if dma_matches(entry, wanted) then return true, nil, "there was a " .. memories.text(entry) end
    local differs = wanted.to and entry.access == "w" and compare.same(entry.gpa, wanted.to)
      and type(wanted.bytes) == "string"
    seen[#seen + 1] = "  " .. memories.text(entry)
      .. (differs and ":\n" .. compare.bytes(wanted.to, entry.data, wanted.bytes) or "")
  end
  return false, ("no DMA %s gpa %s%s; there was%s"):format(wanted.to and "to" or "from",
    u64.hex(wanted.to or wanted.from), wanted.bytes and " of these bytes" or "",
    #seen == 0 and " none" or ":\n" .. table.concat(seen, "\n"))
end

-- ---- Memory ----

--- assert.memory(space, gpa, bytes): of a space, a buffer, a guest, a bus
function checks.memory(memory, gpa, bytes)
  if is(memory, "bus") then memory = memory.memory end
  if is(memory, "guest") then memory = memory.vm.default end
  if type(bytes) ~= "string" or type(gpa) ~= "number" then
    error("assert.memory: memory, an address and a string of bytes expected", 0)
  end
  local found, why = memory:read(gpa, #bytes)
  if not found then return false, why end
  local differs = compare.bytes(gpa, found, bytes)
  return differs == nil, differs and "memory differs:\n" .. differs,
    ("memory at 0x%x has these %d bytes"):format(gpa, #bytes)
end

--- assert.screen(guest, text): the screen shows it
function checks.screen(guest, text)
  local screen = is(guest, "screen") and guest or expect("screen", guest, "guest").screen
  local shown = screen:text()
  return shown:find(text, 1, true) ~= nil, ("the screen does not show %q, but:\n%s"):format(text,
    shown), ("the screen shows %q"):format(text)
end

-- ---- Guests ----

-- Lets a guest run that has not.
local function exit_of(guest, options)
  return guest.exit or guest:run(options)
end

--- assert.outputs(guest, text): all that it prints until it stops
function checks.outputs(guest, text)
  expect("outputs", guest, "guest")
  exit_of(guest)
  local found = guest.console.output
  local differs = compare.text(found, text)
  return differs == nil, differs and ("what the guest has printed differs: %s (%s)"):format(differs,
    tostring(guest.exit)), ("the guest has printed %q"):format(found)
end

--- assert.halts_within(guest, seconds)
function checks.halts_within(guest, seconds)
  expect("halts_within", guest, "guest")
  local exit = guest:run { timeout = seconds }
  return exit.kind == "hlt", ("the guest does not halt within %g s: %s"):format(seconds,
    tostring(exit)), ("the guest halts: %s"):format(tostring(exit))
end

--- assert.faults_at([guest,] gpa, access): it stops with a fault there
function checks.faults_at(...)
  local guest, named = guest_of("faults_at", (...))
  local gpa, access = select(named and 2 or 1, ...)
  local exit = guest:run()
  local fits = exit.kind == "fault" and compare.same(exit.gpa, gpa)
    and (access == nil or exit.access == access)
  return fits, ("a fault at %s expected, got %s"):format(compare.value(gpa), tostring(exit)),
    ("the guest faults: %s"):format(tostring(exit))
end

--- assert.registers([cpu or guest,] { rax = 5, ... })
function checks.registers(...)
  local cpu, wanted = ...
  if type(wanted) ~= "table" then
    wanted = cpu
    cpu = guest_of("registers", nil).cpu
  elseif is(cpu, "guest") then
    cpu = cpu.cpu
  end
  local lines = {}
  for _, name in ipairs(sorted(wanted)) do
    if not compare.same(cpu[name], wanted[name]) then
      lines[#lines + 1] = ("%s is %s, not %s"):format(name, compare.value(cpu[name]),
        compare.value(wanted[name]))
    end
  end
  return #lines == 0, table.concat(lines, "\n"), "the registers are that"
end

--- assert.exit(exit or guest, kind, { field = value })
function checks.exit(exit, kind, fields)
  if is(exit, "guest") then exit = exit_of(exit) end
  if exit == nil then error("assert.exit: an exit or a guest expected, got nil", 0) end
  local lines = {}
  if exit.kind ~= kind then
    lines[1] = ("exit %s expected, got %s"):format(tostring(kind), tostring(exit))
  else
    for name, value in pairs(fields or {}) do
      if not compare.same(exit[name], value) then
        lines[#lines + 1] = ("exit.%s is %s, not %s"):format(name, compare.value(exit[name]),
          compare.value(value))
      end
    end
    table.sort(lines)
    if #lines > 0 then lines[#lines + 1] = "of " .. tostring(exit) end
  end
  return #lines == 0, table.concat(lines, "\n"), "the exit is " .. tostring(exit)
end

--- assert.nothing_left(): no object of the library is alive, behind what tests have made here
function checks.nothing_left()
  failures.close()
  collectgarbage()
  collectgarbage()
  local left = {}
  for kind, count in pairs(luna.live()) do
    if count > 0 then left[#left + 1] = ("%d of %s"):format(count, kind) end
  end
  table.sort(left)
  return #left == 0, "objects are left: " .. table.concat(left, ", "), "no object is left"
end

-- ---- For luassert ----

-- The line of the test, for what a check raises: it is behind luassert's own.
local function place()
  local depth = 2
  local info = debug.getinfo(depth, "Sl")
  while info do
    if info.what ~= "C" and not class.is_own(info)
      and not info.source:find("luassert", 1, true) then
      return ("%s:%d: "):format(info.short_src, info.currentline)
    end
    depth = depth + 1
    info = debug.getinfo(depth, "Sl")
  end
  return ""
end

local function at_test(problem)
  if type(problem) ~= "string" then return problem end
  return place() .. problem:gsub("^[^\n]-/lunavisor/testing/[^\n]-:%d+: ", "")
end

local function adapt(check)
  return function(state, arguments)
    -- luassert would print the arguments whole.
    arguments.nofmt = setmetatable({}, { __index = function() return true end })
    local unpack = rawget(table, "unpack") or unpack
    local passed, ok, wrong, otherwise = xpcall(check, at_test, unpack(arguments, 1, arguments.n))
    if not passed then error(ok, 0) end
    rawset(state, "failure_message", state.mod and wrong or otherwise)
    return ok
  end
end

--- Adds the assertions to luassert, if that is there.
function M.install()
  local ok, assert = pcall(require, "luassert")
  if not ok then return false end
  for name, check in pairs(checks) do
    assert:register("assertion", name, adapt(check), "lunavisor.positive", "lunavisor.negative")
  end
  return true
end

M.checks = checks

return M
