-- SPDX-License-Identifier: MIT
-- What luna run --trace writes: a file of events, as Perfetto and Chrome read it.

local luna = require "lunavisor"
local device = require "lunavisor.device"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local meters = require "lunavisor.vm.meter"
local trace = require "lunavisor.measure.trace"

-- The events of a file, a line each: tables of the numbers and texts in them.
local function events_of(path)
  local text = files.read(path)
  assert.matches('^{"displayTimeUnit":"ns","traceEvents":%[\n', text)
  assert.matches("[^,]\n]}\n$", text)
  local list = {}
  for line in text:gmatch "[^\n]+" do
    if line:find '^{"ph"' then
      local event = { line = line }
      for key, value in line:gmatch '"(%w+)":"?([^",{}]+)"?' do event[key] = value end
      for _, key in ipairs { "ts", "dur" } do event[key] = tonumber(event[key]) end
      list[#list + 1] = event
    end
  end
  return list
end

local function having(events, wanted)
  local found = {}
  for _, event in ipairs(events) do
    local fits = true
    for key, value in pairs(wanted) do fits = fits and event[key] == value end
    if fits then found[#found + 1] = event end
  end
  return found
end

-- The number of the track that has that name.
local function track(events, name)
  local found = having(events, { ph = "M", name = name })[1]
  return found and found.tid
end

local Timer = device "beeper" { width = 4, lines = { irq = {} }, holds = "count",
  registers = { GO = { at = 0, write = function(dev, value) dev.irq:set(value % 2 == 1) end },
    SEEN = { at = 4, reset = 0x1234 } } }

local SOURCE = [[
  mov dx, 0x60
  mov al, 5
  out dx, al
  in al, dx
  mov eax, 1
  mov [0x800000], eax
  mov eax, 0
  mov [0x800000], eax
  mov eax, [0x800004]
  hlt ]]

helper.kvm("a trace", function()
  local path, made
  before_each(function()
    path = helper.file ""
    made = assert(trace.new(path))
    meters.add(made)
  end)
  after_each(function() meters.remove(made) end)

  -- `more`: further accesses that come first.
  local function check(run, more)
    local guest = helper.guest { source = SOURCE, mode = "protected" }
    guest.vm:pio(0x60, 1, { name = "keys", read = function() return 7 end, write = function() end })
    guest.vm:attach(Timer(), { mmio = 0x800000, name = "beep" })
    run(guest)
    assert(made:close())
    local events = events_of(path)
    local keys, beep, cpu = track(events, "keys"), track(events, "beep"), track(events, "vcpu 0")
    assert.equal(5 + (more or 0), #having(events, { ph = "X", tid = cpu }))
    local slices = having(events, { ph = "X", tid = keys })
    assert.equal(2, #slices)
    assert.equal("write port 0x60", slices[1].name)
    assert.equal("5", slices[1].value)
    assert.equal("read port 0x60", slices[2].name)
    assert.is_true(slices[2].ts >= slices[1].ts + slices[1].dur)
    slices = having(events, { ph = "X", tid = beep })
    assert.equal("read gpa 0x800004", slices[3].name)
    local levels = having(events, { ph = "C", name = "beep.irq" })
    assert.equal(2, #levels)
    assert.equal("1", levels[1].level)
    assert.equal("0", levels[2].level)
    local halts = having(events, { ph = "i", name = "hlt" })
    assert.equal(1, #halts)
    helper.contains('"exit":"hlt at rip 0x', halts[1].line)
    return having(events, { ph = "X", tid = keys })[2], slices[3]
  end

  it("has each access on the tracks of its vCPU and device, exits and lines", function()
    local keys, seen = check(function(guest) guest:stops "hlt" end)
    assert.equal("7", keys.value)
    assert.equal(tostring(0x1234), seen.value)
  end)

  it("has those of vCPUs on threads of their own", function()
    check(function(guest)
      helper.spinner(guest)
      assert.equal("hlt", guest.vm:run({ timeout = 60 }).kind)
    end)
  end)

  it("has those of a single one under vm:run", function()
    local keys = check(function(guest)
      assert.equal("hlt", guest.vm:run({ timeout = 60 }).kind)
    end)
    assert.equal("7", keys.value)
  end)

  it("has those of one that gets company", function()
    check(function(guest)
      local second = helper.spinner(guest)
      second.parked = true
      guest.vm:pio(0x61, 1, { write = function() second:start() end })
      guest.ram:write(0x1000, helper.code("out 0x61, al\n" .. SOURCE, 32, 0x1000))
      assert.equal("hlt", guest.vm:run({ timeout = 60 }).kind)
    end, 1)
  end)

  it("goes on where a device is replaced", function()
    local vm = helper.keep(luna.vm())
    local first = vm:attach(Timer(), { mmio = 0x800000, name = "beep" })
    local second = assert(vm:replace(first, Timer))
    second:write(0, 4, 1)
    assert.equal(1, #second.irq.targets)
    assert(made:close())
    assert.equal(1, #having(events_of(path), { ph = "C" }))
  end)

  it("says where its file cannot be", function()
    assert.same({ nil, "/no/where: No such file or directory" }, { trace.new "/no/where" })
  end)
end)
