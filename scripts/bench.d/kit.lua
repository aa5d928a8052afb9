-- SPDX-License-Identifier: MIT
-- What the device kit costs: the own cost of an access to a register of a table, over the fake KVM
-- of the tests and without what that takes, as a ratio to the same device written by hand;
-- nanoseconds of a line's change that reaches the input of another device; milliseconds in which a
-- recording of 100,000 accesses is replayed, in which 200 derived tests of shipped devices run, and
-- which 27 specs of the UART and the 8259A take from the shell to their result.

local rounds = require "rounds"
local device = require "lunavisor.device"
local luna = require "lunavisor"
local fake = require "fake_kvm"

local EXITS, ROUNDS, CHANGES = 5000, 60, 2000

local PLAIN, FIELDS, STATUS, HOOKED = 0, 4, 8, 16 -- offsets

local kit = device "bench" {
  width = 4,
  registers = {
    PLAIN = { at = PLAIN },
    FIELDS = { at = FIELDS, fields = { on = 0, mode = "3:1", busy = { 7, "ro" } } },
    STATUS = { at = STATUS, access = "w1c" },
    ENABLE = { at = 12 },
    HOOKED = { at = HOOKED, write = function(dev, value) dev.last = value end },
  },
  lines = { irq = { status = "STATUS", enable = "ENABLE" } },
  holds = "last",
}

-- The same by hand, with the operators of the engine.
local HAND = [[
local Hand = {}
Hand.__index = Hand
function Hand:update()
  local level = AND(self.status, self.enable) ~= 0
  if level ~= self.level then self:line(level) end
end
function Hand:line(level) self.level = level end
function Hand:changed(value) self.last = value end
function Hand:read(offset, size)
  local value
  if offset == 0 then value = self.plain
  elseif offset == 4 then value = self.fields
  elseif offset == 8 then value = self.status
  elseif offset == 12 then value = self.enable
  elseif offset == 16 then value = self.hooked
  else value = 0xffffffff end
  if size == 4 then return value end
  return value % 2 ^ (8 * size)
end
function Hand:write(offset, size, value)
  if size ~= 4 then return end
  if offset == 0 then self.plain = value
  elseif offset == 4 then self.fields = OR(AND(self.fields, 0x80), AND(value, 0xf))
  elseif offset == 8 then
    self.status = AND(self.status, NOT(value))
    self:update()
  elseif offset == 12 then
    self.enable = value
    self:update()
  elseif offset == 16 then
    self.hooked = value
    self:changed(value)
  end
end
return function()
  return setmetatable({ plain = 0, fields = 0, status = 0, enable = 0, hooked = 0, level = false },
    Hand)
end]]

local jit = rawget(_G, "jit") ~= nil
local function operator(source, name, sign, call)
  return (source:gsub(name .. "(%b())", function(arguments)
    local one, other = arguments:sub(2, -2):match "^(.-), (.*)$"
    if jit then return ("(bit.%s%s %% 4294967296)"):format(call, arguments) end
    if not one then return sign .. arguments end
    return ("(%s %s %s)"):format(one, sign, other)
  end))
end

local source = operator(HAND, "NOT", "~", "bnot")
source = operator(source, "AND", "&", "band")
-- An OR of two ANDs: what is in it is done by now.
source = source:gsub("OR(%b())", function(arguments)
  return jit and "bit.bor" .. arguments or arguments:gsub(", ", " | ", 1)
end)
local hand = assert((loadstring or load)((jit and "local bit = require 'bit'\n" or "") .. source))()

-- Seconds of so many exits to the device's register.
local function runner(dev, offset)
  local vm = assert(luna.vm())
  vm:pio(rounds.PORT - offset, 20, dev)
  local cpu = assert(vm:vcpu { mode = "real" })
  return rounds.timed(function()
    assert(cpu:run { max_exits = EXITS }.kind == "limit")
  end), vm
end

local function base()
  return rounds.raw("base", EXITS)
end

local function sample(offset)
  local ours, vm = runner(kit { log = false }, offset)
  local theirs, other = runner(hand(), offset)
  local ratio = rounds.own_ratio(ours, theirs, base, ROUNDS)
  vm:close()
  other:close()
  return ratio
end

local function access(name, offset, is_in)
  return { name = name, unit = "x", limit = { luajit = 1.25, lua54 = 1.5 },
    measure = function()
      fake.install()
      fake.endless_pio(rounds.PORT, 4, is_in)
      local samples = rounds.samples(sample, offset)
      fake.remove()
      return samples
    end }
end

local function line_change()
  local pic = device "pic" { registers = { IRR = { at = 0 } }, inputs = 8,
    input = function(dev, _, level) dev.IRR = level and 16 or 0 end } ()
  local source_line = device.line "source"
  source_line:connect(pic.inputs[4])
  return rounds.samples(rounds.difference, rounds.timed(function()
    for i = 1, CHANGES do source_line:set(i % 2 == 1) end
  end), function() return 0 end, ROUNDS, CHANGES)
end

local REPLAYED = 20000 -- a fifth of those that the figure is for

local function replay()
  local t = require "lunavisor.testing"
  local uart = require "lunavisor.device.models.uart16550"
  local path, bus = os.tmpname(), t.bus(uart)
  local recording = assert(bus:record(path))
  bus:write8("FCR", 1)
  for i = 1, REPLAYED / 4 do
    bus:write8("THR", i % 256)
    bus:write8("SCR", i % 256)
    bus:read8("SCR")
    bus:read8(i % 2 == 0 and "LSR" or "IIR")
    bus:pass(87e-6)
  end
  recording:close()
  local samples = rounds.samples(rounds.difference, rounds.timed(function()
    assert(t.replay(path, t.bus(uart)).accesses > REPLAYED)
  end), function() return 0 end, 3, 1e6 / 5)
  os.remove(path)
  return samples
end

-- Milliseconds of 200 of all derived tests of these devices.
local function derived()
  local t = require "lunavisor.testing"
  local begin, count = rounds.clock(), 0
  for name in ("uart16550 i8254 i8259 mc146818 acpi_pm fw_cfg pci_host"):gmatch "%S+" do
    local kind = require("lunavisor.device.models." .. name) -- 5.4 gives a second value
    for _, test in ipairs(t.derive(kind)) do
      test.check()
      count = count + 1
    end
  end
  return (rounds.clock() - begin) * 1000 * 200 / count
end

-- Milliseconds of a process that runs the specs of two devices, for 27 of them.
local function specs()
  local command = ("%s \"$(command -v busted)\" spec/device/uart16550_spec.lua "
    .. "spec/device/i8259_spec.lua"):format(arg[-1])
  local begin = luna.clock()
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  local time = luna.clock() - begin
  local passed = tonumber(text:match "(%d+) success")
  if not passed or passed < 27 or not text:find(" 0 failures / 0 errors", 1, true) then
    error("these specs do not pass: " .. text, 0)
  end
  return time * 1000 * 27 / passed
end

local figures = {
  access("kit_read", PLAIN, true),
  access("kit_write", PLAIN, false),
  access("kit_fields", FIELDS, false),
  access("kit_w1c_line", STATUS, false),
  access("kit_hooked", HOOKED, false),
  { name = "kit_line", unit = "ns", limit = { luajit = 300 }, measure = line_change },
  { name = "kit_replay", unit = "ms", limit = { luajit = 1000 }, measure = replay },
  { name = "kit_derived", unit = "ms", limit = 2000,
    measure = function() return rounds.samples(derived) end },
}
if rounds.is_installed "busted" then
  figures[#figures + 1] = { name = "kit_specs", unit = "ms", limit = 150,
    measure = function() return rounds.samples(specs) end }
elseif jit then
  io.stderr:write "bench: kit_specs is skipped: busted is not installed\n"
end
return figures
