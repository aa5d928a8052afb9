-- SPDX-License-Identifier: MIT
-- An MC146818 clock with the CMOS memory of a PC behind an index and a data port, by Motorola's
-- datasheet (ADI856R3), whose headings are in quotes. Option time: seconds since 1970, UTC, or a
-- function of them, os.time where nil; ram: bytes by index; century: the index of that byte.

local device = require "lunavisor.device"
local calendar = require "lunavisor.device.models.calendar"
local ticks = require "lunavisor.device.models.ticks"
local word = require "lunavisor.device.word"

local bits, insert, floor = word.bits, word.insert, math.floor
local HERTZ = 32768 -- of the crystal; `base` and counts are in its periods

-- Index of the bytes; the registers A to D are 10 to 13.
local FIELDS = { second = 0, minute = 2, hour = 4, weekday = 6, day = 7, month = 8, year = 9 }
local ALARM = { second = 1, minute = 3, hour = 5 }
local PF, AF, UF = 0x40, 0x20, 0x10

-- ---- Time as bytes: "Time, Calendar, and Alarm Locations" ----

local function encode(d, name, value)
  local binary, long = bits(d.B, 2) == 1, bits(d.B, 1) == 1
  local afternoon = name == "hour" and not long and value >= 12
  if name == "hour" and not long then value = (value + 11) % 12 + 1 end
  return (binary and value or word.bcd(value)) + (afternoon and 0x80 or 0)
end

local function decode(d, name, byte)
  local binary, long = bits(d.B, 2) == 1, bits(d.B, 1) == 1
  local short = name == "hour" and not long
  local value = short and byte % 0x80 or byte
  if not binary then value = word.from_bcd(value) end
  return short and value % 12 + (byte >= 0x80 and 12 or 0) or value
end

local function count(d) return d.base + ticks.count(d, HERTZ) end

-- Whether the divider counts and is not held by SET ("Register B").
local function runs(d) return bits(d.B, 7) == 0 and bits(d.A, 4, 3) < 6 end

-- Writes the time into its bytes, if it runs: else they are as they were left.
local function show(d)
  if not runs(d) then return end
  local date = calendar.date(floor(count(d) / HERTZ))
  date.weekday = (date.weekday + d.weekday) % 7 + 1
  for name, index in pairs(FIELDS) do
    d.ram[index] = encode(d, name, name == "year" and date.year % 100 or date[name])
  end
  if d.options.century then d.ram[d.options.century] = word.bcd(floor(date.year / 100) % 100) end
end

-- Takes the time from its bytes.
local function take(d)
  local date = {}
  for name, index in pairs(FIELDS) do date[name] = decode(d, name, d.ram[index]) end
  local century = d.options.century and word.from_bcd(d.ram[d.options.century]) or 20
  date.year = date.year + 100 * century
  local seconds = calendar.seconds(date)
  d.weekday = (date.weekday - 1 - calendar.date(seconds).weekday) % 7
  d.base = d.base + seconds * HERTZ + count(d) % HERTZ - count(d)
end

-- ---- Interrupts ----

-- Periods of the crystal between two periodic interrupts; nil for none ("Periodic Interrupt").
local function period(d)
  local rate = d.A % 16
  if rate == 0 then return nil end
  return 2 ^ (rate < 3 and rate + 6 or rate - 1)
end

-- The first second after one at which the alarm is due; nil within a day and a half.
local function next_alarm(d, second)
  local due = {}
  for name, index in pairs(ALARM) do
    if d.ram[index] < 0xc0 then due[name] = decode(d, name, d.ram[index]) end
  end
  local at = second + 1
  while at < second + 129600 do
    local date = calendar.date(at)
    if due.hour and date.hour ~= due.hour then
      at = at - at % 3600 + 3600
    elseif due.minute and date.minute ~= due.minute then
      at = at - at % 60 + 60
    elseif due.second and date.second ~= due.second then
      at = at + 1
    else
      return at
    end
  end
end

local function raise(d, flag) d.flags = word.bor(d.flags, flag) end

-- Notes what has become due since the last time ("Register C"): flags come without their enables.
local function catch_up(d)
  local now, before = count(d), d.noted
  d.noted = now
  if bits(d.A, 4, 3) > 5 then return end
  local each = period(d)
  if each and floor(now / each) > floor(before / each) then raise(d, PF) end
  local second, last = floor(now / HERTZ), floor(before / HERTZ)
  if second <= last or not runs(d) then return end
  raise(d, UF)
  local alarm = next_alarm(d, last)
  if alarm and alarm <= second then raise(d, AF) end
end

-- Asks to be called at the next moment that interrupts.
local function arm(d)
  local now, due = count(d), nil
  local function at(enable, moment)
    if bits(d.B, enable) == 1 and bits(d.flags, enable) == 0 and moment then
      due = math.min(due or moment, moment)
    end
  end
  local each = bits(d.A, 4, 3) < 6 and period(d)
  at(6, each and (floor(now / each) + 1) * each)
  if runs(d) then
    local alarm = bits(d.B, 5) == 1 and next_alarm(d, floor(now / HERTZ))
    at(5, alarm and alarm * HERTZ)
    at(4, (floor(now / HERTZ) + 1) * HERTZ)
  end
  if due then ticks.at(d, HERTZ, due - d.base, "due") else d:cancel "due" end
end

-- ---- The processor's side ----

-- "Update Cycle": UIP is up 244 us before it begins, and it takes 1984 us.
local function updating(d)
  return runs(d) and count(d) % HERTZ >= HERTZ - 73 and 0x80 or 0
end

local function read(d)
  local index = d.INDEX.index
  catch_up(d)
  show(d)
  if index == 10 then return d.A + updating(d) end
  if index == 11 then return d.B end
  if index == 13 then return 0x80 end
  if index ~= 12 then return d.ram[index] end
  local flags = d.flags
  d.flags = 0
  arm(d)
  return flags + (word.band(flags, d.B % 0x80) > 0 and 0x80 or 0)
end

-- "Register A": the first update comes half a second after the divider is let go.
local function write_a(d, value)
  local held = bits(d.A, 4, 3) > 5
  d.A = value % 0x80
  if held and bits(d.A, 4, 3) < 6 then
    take(d)
    d.base = d.base - count(d) % HERTZ + HERTZ / 2
  end
end

local function write_b(d, value)
  local held = bits(d.B, 7) == 1
  if not held and value >= 0x80 then value = insert(value, 4, 1, 0) end -- SET clears UIE
  d.B = value
  if held and value < 0x80 then take(d) end
  d.noted = count(d)
end

local function write(d, value)
  local index = d.INDEX.index
  catch_up(d)
  show(d)
  if index == 10 then
    write_a(d, value)
  elseif index == 11 then
    write_b(d, value)
  elseif index ~= 12 and index ~= 13 then
    d.ram[index] = value
    local timed = index == d.options.century or index < 10 and index % 2 == 0 or index == 7
      or index == 9
    if timed and runs(d) then take(d) end
  end
  d.noted = count(d)
  arm(d)
end

local function set_time(d)
  local time = d.options.time
  d.base = floor((type(time) == "function" and time() or time or os.time()) * HERTZ)
  d.noted = d.base
end

local RAM = {}
for index = 0, 127 do RAM[index] = 0 end

return device "mc146818" {
  width = 1, keeps = "ram passed base weekday noted A B epoch",
  options = { time = false, ram = {}, century = 0x32 },
  registers = {
    INDEX = { at = 0, access = "wo", fields = { index = "6:0", nmi = 7 } },
    DATA = { at = 1, precious = true, read = read, write = write },
  },
  state = { passed = 0, base = 0, noted = 0, weekday = 0, flags = 0, A = 0x26, B = 2, ram = RAM },
  lines = {
    irq = function(d) return word.band(d.flags, d.B % 0x80) > 0 end,
    nmi_off = { status = "INDEX.nmi" },
  },
  timers = { epoch = ticks.epoch, due = function(d)
    catch_up(d)
    arm(d)
  end },
  init = function(d, options)
    for index, byte in pairs(options.ram) do d.ram[index] = byte end
    ticks.start(d)
    set_time(d)
  end,
  reset = function(d) d.B = d.B % 8 end, -- "Reset": enables and SQWE, not the time nor SET's data
  methods = {
    --- A byte of the memory, and with a value sets it, without effects.
    byte = function(d, index, value)
      if type(index) ~= "number" or RAM[index] == nil then
        error(("rtc:byte: an index from 0 to 127 expected, got %s"):format(tostring(index)), 2)
      end
      show(d)
      if value then d.ram[index] = value end
      return d.ram[index]
    end,
  },
}
