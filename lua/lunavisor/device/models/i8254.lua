-- SPDX-License-Identifier: MIT
-- An 8254 interval timer, by Intel's datasheet (September 1993), whose headings are in quotes. Its
-- counters are computed from the time: a count of ticks since it was loaded. gate0 and gate1 are
-- up, as in a PC; gate2 is where it is connected.

local device = require "lunavisor.device"
local ticks = require "lunavisor.device.models.ticks"
local word = require "lunavisor.device.word"

local floor, ceil = math.floor, math.ceil
local bits = word.bits
local HERTZ = 1193182

-- A counter: control, the control word; mode; written, the count register (a number of ticks); n,
-- the count that is counted; start, the tick when that was loaded, nil while it is not; held, ticks
-- counted when the gate stopped it; pending and boundary: a count for the next cycle and its tick;
-- loaded: the tick when the count register was taken; out.
local function blank()
  return { control = 0x30, mode = 0, written = 0, out = false, low = false, high = false }
end

-- ---- "Mode Definitions" ----

local function elapsed(c, t)
  if c.held then return c.held end
  return c.start and t - c.start
end

-- OUT at a tick.
local function level(c, t)
  local e = elapsed(c, t)
  if not e then return c.mode ~= 0 end
  if e < 0 then return c.mode == 1 and c.out or c.mode > 1 end
  if c.mode < 2 then return e >= c.n end
  if c.mode == 2 then return e % c.n ~= c.n - 1 end
  if c.mode == 3 then return e % c.n < ceil(c.n / 2) end
  return e ~= c.n
end

-- The first tick after t at which OUT may change; nil where it stays.
local function change(c, t)
  local e = elapsed(c, t)
  if not e or c.held then return nil end
  if e < 0 then return c.start end
  if c.mode == 2 then
    local p = e % c.n
    return t + (p < c.n - 1 and c.n - 1 - p or 1)
  elseif c.mode == 3 then
    local p, half = e % c.n, ceil(c.n / 2)
    return t + (p < half and half - p or c.n - p)
  end
  if e < c.n then return c.start + c.n end
  return c.mode > 3 and e == c.n and t + 1 or nil
end

-- The counting element: it goes on below 0; in mode 3 by two, from an even number.
local function count(c, t)
  local modulus = bits(c.control, 0) == 1 and 10000 or 65536
  local e = elapsed(c, t)
  if not e or e < 0 then return c.frozen or c.written % modulus end
  if c.mode == 2 then return (c.n - e % c.n) % modulus end
  if c.mode == 3 then
    local p, half = e % c.n, ceil(c.n / 2)
    return (c.n - c.n % 2 - 2 * (p < half and p or p - half)) % modulus
  end
  return (c.n - e) % modulus
end

-- ---- Loading ----

local function load_at(c, tick)
  c.n, c.start, c.loaded, c.held, c.pending = c.written, tick, tick, nil, nil
  if c.mode == 2 or c.mode == 3 then c.n = math.max(2, c.n) end -- 1 is illegal
end

-- Takes a count that waits for the end of its cycle, in mode 3 of its half.
local function settle(c, t)
  if not c.pending or t < c.boundary then return end
  local first = c.pending == "half"
  load_at(c, c.boundary)
  if first then c.start = c.boundary - ceil(c.n / 2) end
end

local function wait(c, t)
  local p = (t - c.start) % c.n
  local half = c.mode == 3 and p < ceil(c.n / 2)
  c.pending = half and "half" or "cycle"
  c.boundary = t - p + (half and ceil(c.n / 2) or c.n)
end

-- Brings a counter's line up to date as of a tick and asks to be called at its next change, where
-- anybody listens: ticks that nobody sees need not be stopped at.
local function refresh(d, i, t)
  local c, name = d.counters[i], "out" .. i
  settle(c, t)
  c.out = level(c, t)
  d.lines[name] = c.out
  local next_change = change(c, t)
  if next_change and d[name].sinks[1] then
    c.due = next_change
    ticks.at(d, HERTZ, next_change, name)
  else
    d:cancel(name)
  end
end

local function timer(i)
  return function(d)
    local c, t = d.counters[i], ticks.count(d, HERTZ)
    refresh(d, i, t - c.due > HERTZ and t or c.due) -- a clock that is late loses no edge
  end
end

-- "Write Operations": a new count.
local function store(d, i, value)
  local c, t = d.counters[i], ticks.count(d, HERTZ)
  settle(c, t)
  if bits(c.control, 0) == 1 then
    value = word.from_bcd(floor(value / 256)) * 100 + word.from_bcd(value % 256)
  end
  c.written = value > 0 and value or bits(c.control, 0) == 1 and 10000 or 65536
  c.loaded = nil
  local gate = d.inputs["gate" .. i].level
  if c.mode == 0 or c.mode == 4 then
    load_at(c, t + 1)
    if not gate then c.held = 0 end
  elseif c.mode == 2 or c.mode == 3 then
    if c.start then
      if t < c.start then load_at(c, c.start) else wait(c, t) end
    elseif gate then
      load_at(c, t + 1)
    end
  end
  refresh(d, i, t)
end

-- "Gate": table 5 ("Gate Pin Operations Summary").
local function gate(i)
  return function(d, up)
    local c, t = d.counters[i], ticks.count(d, HERTZ)
    if c.mode == 0 or c.mode == 4 then
      if up and c.held then
        c.start, c.held = t - c.held, nil
      elseif not up and c.start and not c.held then
        c.held = math.max(0, t - c.start)
      end
    elseif up and c.written > 0 then
      load_at(c, t + 1)
    elseif not up and (c.mode == 2 or c.mode == 3) and c.start then
      settle(c, t)
      c.frozen = count(c, t)
      c.start, c.pending = nil, nil
    end
    refresh(d, i, t)
  end
end

-- ---- The processor's side ----

local function latch_count(d, i)
  local c, t = d.counters[i], ticks.count(d, HERTZ)
  settle(c, t)
  local value = count(c, t)
  if bits(c.control, 0) == 1 then
    value = word.bcd(floor(value / 100)) * 256 + word.bcd(value % 100)
  end
  c.latch = c.latch or value
end

local function latch_status(d, i)
  local c, t = d.counters[i], ticks.count(d, HERTZ)
  settle(c, t)
  local null = not c.loaded or t < c.loaded
  c.status = c.status or c.control + (null and 0x40 or 0) + (level(c, t) and 0x80 or 0)
end

-- "Read-Back Command".
local function read_back(d, value)
  for i = 0, 2 do
    if bits(value, i + 1) == 1 then
      if bits(value, 5) == 0 then latch_count(d, i) end
      if bits(value, 4) == 0 then latch_status(d, i) end
    end
  end
end

local function control(d, value)
  local i = bits(value, 6, 2)
  if i == 3 then return read_back(d, value) end
  if bits(value, 4, 2) == 0 then return latch_count(d, i) end
  local mode = bits(value, 1, 3)
  d.counters[i] = blank()
  d.counters[i].control, d.counters[i].mode = value % 64, mode > 5 and mode - 4 or mode
  refresh(d, i, ticks.count(d, HERTZ))
end

-- The byte of a 16-bit value that comes next: of both, the low one first.
local function read(d, _, i)
  local c = d.counters[i]
  if c.status then
    local status = c.status
    c.status = nil
    return status
  end
  local access, latched = bits(c.control, 4, 2), c.latch
  if not latched then latch_count(d, i) end
  local value = c.latch
  local high = access == 2 or access == 3 and c.high
  if access == 3 then c.high = not c.high end
  if not latched or not c.high then c.latch = nil end
  return high and floor(value / 256) or value % 256
end

local function write(d, value, _, _, i)
  local c = d.counters[i]
  local access = bits(c.control, 4, 2)
  if access == 1 then return store(d, i, value) end
  if access == 2 then return store(d, i, value * 256) end
  if c.low then
    local low = c.low
    c.low = false
    return store(d, i, value * 256 + low)
  end
  c.low = value
  if c.mode == 0 then -- "Writing the first byte disables counting. OUT is set low immediately"
    c.start, c.held, c.frozen = nil, nil, count(c, ticks.count(d, HERTZ))
    refresh(d, i, ticks.count(d, HERTZ))
  end
end

return device "i8254" {
  width = 1,
  registers = {
    COUNTER = { at = 0, count = 3, precious = true, read = read, write = write },
    CONTROL = { at = 3, access = "wo", write = control },
  },
  state = { passed = 0, counters = { [0] = blank(), blank(), blank() } },
  inputs = { gate0 = gate(0), gate1 = gate(1), gate2 = gate(2) },
  lines = { out0 = true, out1 = true, out2 = true },
  timers = { epoch = ticks.epoch, out0 = timer(0), out1 = timer(1), out2 = timer(2) },
  init = function(d)
    ticks.start(d)
    d.inputs.gate0:set(true)
    d.inputs.gate1:set(true)
  end,
  reset = ticks.start,
  methods = {
    --- Whether OUT of a counter is up now; its line is that only where something is connected.
    out = function(d, i)
      local c, t = d.counters[i], ticks.count(d, HERTZ)
      settle(c, t)
      return level(c, t)
    end,
  },
}
