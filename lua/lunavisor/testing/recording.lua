-- SPDX-License-Identifier: MIT
-- Files of device/recorder.lua, read and checked: a list of events. A file that is not as the
-- recorder writes it is refused, with the line.

local plain = require "lunavisor.text.plain"
local recorder = require "lunavisor.device.recorder"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Lines ----

local function unhex(digits)
  return (digits:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function word(digits)
  return #digits <= 13 and tonumber(digits, 16) or u64("0x" .. digits)
end

-- A value of so many bytes: a number up to 4, a u64 beyond.
local function value_of(digits, size)
  if #digits > 16 or size < 1 or size > 8 then return nil end
  if size > 4 then return u64("0x" .. digits) end
  local value = tonumber(digits, 16)
  return value < 256 ^ size and value or nil
end

-- Makes an access of what is behind "r" or "w"; nil and what is wrong.
local function access(op)
  return function(file, text)
    local place, offset, size, value, above = text:match "^.(%d+) (%x+) (%d) (%x+) ?(%d*)$"
    if not place then return nil, "an access expected" end
    local about = file.places[tonumber(place)]
    if not about then return nil, "there is no place " .. place end
    size = tonumber(size)
    local given = value_of(value, size)
    if given == nil then return nil, ("%s is no value of %d bytes"):format(value, size) end
    file.accesses = file.accesses + 1
    return { op = op, place = about, device = about.device, offset = tonumber(offset, 16),
      size = size, value = given, above = file.devices[tonumber(above)] }
  end
end

-- The same for a block of string I/O.
local function block(op)
  return function(file, text)
    local place, offset, size, digits, above = text:match "^.(%d+) (%x+) (%d) (%x+) ?(%d*)$"
    local about = place and file.places[tonumber(place)]
    size = tonumber(size)
    if not about or size < 1 or #digits % (2 * size) ~= 0 then
      return nil, about and "whole elements expected" or "a block of a place expected"
    end
    file.accesses = file.accesses + 1
    return { op = op, place = about, device = about.device, offset = tonumber(offset, 16),
      size = size, data = unhex(digits), count = #digits / 2 / size,
      above = file.devices[tonumber(above)] }
  end
end

-- The device whose number begins a line, and the rest.
local function device_of(file, text)
  local number, rest = text:match "^%l*%u?(%d+) (.+)$"
  number = tonumber(number)
  local about = number and file.devices[number]
  if not about then
    return nil, number and "there is no device " .. number or "a device expected"
  end
  return about, rest
end

local function level(op)
  return function(file, text)
    local about, rest = device_of(file, (text:gsub("^input ", "i")))
    if not about then return nil, rest end
    local name, up = rest:match "^(.+) ([01])$"
    if not name then return nil, "a line and its level expected" end
    if op == "input" then about.levels[name] = up == "1" end
    return { op = op, device = about, name = name, level = up == "1", text = rest }
  end
end

local function dma(op)
  return function(file, text)
    local about, rest = device_of(file, text)
    if not about then return nil, rest end
    local gpa, size, why = rest:match "^(%x+) (%d+) ! (.*)$"
    local digits
    if not gpa then gpa, digits = rest:match "^(%x+) (%x+)$" end
    if not gpa or #gpa > 16 or digits and #digits % 2 ~= 0 then
      return nil, "an address and bytes expected"
    end
    local event = { op = op, device = about, gpa = word(gpa), why = why, text = rest,
      data = digits and unhex(digits), size = digits and #digits / 2 or tonumber(size) }
    if op == "d" then table.insert(about.reads, event) end
    if op == "D" and why then table.insert(about.failures, event) end
    return event
  end
end

local function method(file, text)
  local about, rest = device_of(file, text)
  if not about then return nil, rest end
  local above, name, both = rest:match "^(%d+) (%S+) (.+)$"
  if not above then return nil, "a method and its arguments expected" end
  local given, result
  for at in both:gmatch "() " do -- values may have blanks
    local ok, value = plain.read(both:sub(1, at - 1))
    if ok or both:sub(1, at - 1) == "?" then
      given, result = value, both:sub(at + 1)
      break
    end
  end
  if not result or result ~= "?" and not plain.read(result) then
    return nil, "plain values expected"
  end
  return { op = "m", device = about, above = file.devices[tonumber(above)], name = name,
    given = given, result = result }
end

-- What a script did to a register, FIFO or line.
local function scripted(file, text)
  local about, rest = device_of(file, text)
  if not about then return nil, rest end
  local above, name, how, value = rest:match "^(%d+) (%S+) (%S+) (%x+)$"
  if not above or #value > 16 then return nil, "a register or line, how and a value expected" end
  return { op = "s", device = about, above = file.devices[tonumber(above)], name = name,
    how = tonumber(how) or how, value = word(value) }
end

-- A declared field that a script set.
local function field(file, text)
  local about, rest = device_of(file, text)
  if not about then return nil, rest end
  local above, name, value = rest:match "^(%d+) (%S+) (.+)$"
  local ok, given = plain.read(value or "")
  if not ok and value ~= "?" then return nil, "a field and a plain value expected" end
  return { op = "v", device = about, above = file.devices[tonumber(above)], name = name,
    value = given, held = ok }
end

-- Bytes that a script wrote to a buffer of the device, or with which it filled it.
local function written(op)
  return function(file, text)
    local about, rest = device_of(file, text)
    if not about then return nil, rest end
    local above, name, offset, size, digits
    if op == "p" then
      above, name, offset, digits = rest:match "^(%d+) (%S+) (%x+) (%x*)$"
    else
      above, name, offset, size, digits = rest:match "^(%d+) (%S+) (%x+) (%x+) (%x%x)$"
    end
    if not above or #digits % 2 ~= 0 then return nil, "a buffer, an offset and bytes expected" end
    return { op = op, device = about, above = file.devices[tonumber(above)], name = name,
      offset = tonumber(offset, 16), size = size and tonumber(size, 16), data = unhex(digits) }
  end
end

-- What a buffer has come to: digests of its pages.
local function digests(file, text)
  local about, rest = device_of(file, text)
  if not about then return nil, rest end
  local name, list = rest:match "^([%w_]+) ([%x: ]*)$"
  if not name then return nil, "a buffer and digests of its pages expected" end
  return { op = "h", device = about, name = name, digests = list }
end

local function moment(_, text)
  local nanoseconds = tonumber(text:match "^@(%d+)$")
  if not nanoseconds then return nil, "a time in nanoseconds expected" end
  return { op = "@", moment = nanoseconds }
end

local function fire(_, text)
  local number = tonumber(text:match "^f(%d+)$")
  if not number then return nil, "the number of a clock expected" end
  return { op = "f", clock = number }
end

local function device_line(file, text)
  local number, kind, version, clock, started, name =
    text:match "^device (%d+) (%S+) (%d+) (%d+) (%d+) (.+)$"
  if not number or tonumber(number) ~= #file.devices + 1 then
    return nil, "the next device expected"
  end
  local about = { number = #file.devices + 1, kind = kind, version = tonumber(version),
    clock = tonumber(clock), started = tonumber(started), name = name, regions = {}, options = {},
    levels = {}, reads = {}, failures = {} }
  file.devices[about.number] = about
  return { op = "device", device = about }
end

local function place_line(file, text)
  local number, of, region, where = text:match "^place (%d+) (%d+) (%S+) (.+)$"
  local about = file.devices[tonumber(of)]
  if not about or tonumber(number) ~= #file.places + 1 then
    return nil, "the next place of a device expected"
  end
  local place = { number = #file.places + 1, device = about, region = region, where = where }
  file.places[place.number] = place
  about.regions[region] = place
  return { op = "place", place = place }
end

local function plain_line(key)
  return function(file, text)
    local about, rest = device_of(file, (text:gsub("^%l+ ", "p")))
    if not about then return nil, rest end
    local ok, value = plain.read(rest)
    if not ok and rest ~= "?" then return nil, "plain values expected" end
    about[key] = value
    return { op = key, device = about, value = value }
  end
end

local readers = {
  r = access "r", w = access "w", b = block "b", B = block "B",
  i = level "i", l = level "l", d = dma "d", D = dma "D",
  m = method, s = scripted, v = field, p = written "p", P = written "P", h = digests,
  ["@"] = moment, f = fire,
  x = function() return { op = "x" } end,
}
local words = {
  device = device_line, place = place_line, input = level "input", state = plain_line "state",
  options = plain_line "options",
}

-- ---- Files ----

-- What each line says; nil and a message where one cannot be.
local function read_lines(file, from)
  for text in from:lines() do
    file.count = file.count + 1
    local accesses = text:match "^end (%d+)$"
    if file.ended then return nil, "something behind the end" end
    if accesses then
      file.ended = tonumber(accesses)
      if file.ended ~= file.accesses then
        return nil, ("%d accesses, and %d are there"):format(file.ended, file.accesses)
      end
    else
      local reader = words[text:match "^(%l+) "] or readers[text:sub(1, 1)]
      if not reader then return nil, "nothing that a recording has" end
      local event, why = reader(file, text)
      if not event then return nil, why end
      event.line = text
      file.events[#file.events + 1] = event
    end
  end
  if not file.ended then return nil, "its end is missing: the recording was not closed" end
  return true
end

--- A recording: { path, events (a list, by what the line begins with: op), devices (a list),
--- places, accesses (their number) }; nil and a message where the file is not there or damaged.
function M.read(path)
  local from, message = io.open(path, "rb")
  if not from then return nil, message end
  local version = (from:read "*l" or ""):match("^" .. recorder.TITLE .. "(%d+)$")
  if version ~= tostring(recorder.VERSION) then
    from:close()
    return nil, version and ("%s:1: a recording of version %s; this library reads version %d")
      :format(path, version, recorder.VERSION) or path .. ":1: this is no recording"
  end
  local file = { path = path, events = {}, devices = {}, places = {}, accesses = 0, count = 1 }
  local ok, why = read_lines(file, from)
  from:close()
  if not ok then
    return nil, ("%s:%d: the recording is damaged: %s"):format(path, file.count, why)
  end
  return file
end

return M
