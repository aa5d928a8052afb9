-- SPDX-License-Identifier: MIT
-- A local APIC: the register page of SDM Vol. 3, chapter 11, whose sections are cited. The line
-- `intr` is up while the processor is to be interrupted, which asks lapic:acknowledge() for the
-- vector. x2apic.lua has its MSRs; apic_bus.lua joins several, I/O APICs, and vCPUs.

local device = require "lunavisor.device"
local timers = require "lunavisor.device.models.lapic_timer"
local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"
local x2apic = require "lunavisor.device.models.x2apic"

local bits, insert, band, floor = word.bits, word.insert, word.band, math.floor

local FIXED, LOWEST, SMI, NMI, INIT, STARTUP, EXTINT = 0, 1, 2, 4, 5, 6, 7 -- 11.6.1
local SEND_ILLEGAL, RECEIVE_ILLEGAL, NO_REGISTER = 0x20, 0x40, 0x80         -- 11.5.3
local LVT = { "LVT_TIMER", "LVT_THERMAL", "LVT_PERF", "LVT_LINT0", "LVT_LINT1", "LVT_ERROR" }

-- ---- 256 bits in eight words ----

-- Where the first words stand in a device: by dev.IRR an interrupt took five times as long. Who
-- changes them brings the line up to date.
local ISR, TMR, IRR

local function has(d, words, vector)
  return bits(d[words + floor(vector / 32)], vector % 32) == 1
end

local function put(d, words, vector, on)
  local slot = words + floor(vector / 32)
  d[slot] = insert(d[slot], vector % 32, 1, on and 1 or 0)
end

-- The highest vector, -1 for none.
local function highest(d, words)
  for i = 7, 0, -1 do
    local left, number = d[words + i], 32 * i
    if left > 0 then
      for step = 4, 0, -1 do
        local size = 2 ^ step
        if left >= 2 ^ size then
          left, number = floor(left / 2 ^ size), number + size
        end
      end
      return floor(number)
    end
  end
  return -1
end

-- ---- Priorities (11.8.3) ----

local function priority(d)
  local task, serving = d.TPR.level, highest(d, ISR)
  local class = serving < 0 and 0 or floor(serving / 16)
  return floor(task / 16) >= class and task or 16 * class
end

-- The vector that is to interrupt now; nil.
local function next_vector(d)
  if d.SVR.enable == 0 then return nil end
  local vector = highest(d, IRR)
  return vector >= 0 and floor(vector / 16) > floor(priority(d) / 16) and vector or nil
end

-- ---- Errors (11.5.3) ----

local accept

local function fail(d, bit)
  d.errors = word.bor(d.errors, bit)
  local lvt = d.LVT_ERROR
  if lvt.mask == 0 then accept(d, lvt.vector, false) end
end

-- ---- Arriving ----

--- Takes a fixed interrupt; whether it was one (11.8.4).
function accept(d, vector, level)
  if d.SVR.enable == 0 then return false end
  if vector < 16 then
    if not d.failing then
      d.failing = true -- the error interrupt's own vector may be illegal
      fail(d, RECEIVE_ILLEGAL)
      d.failing = false
    end
    return false
  end
  put(d, TMR, vector, level)
  put(d, IRR, vector, true)
  return true
end

local function signal(d, what, vector)
  if d.options.signal then d.options.signal(d, what, vector) end
end

--- A message from the bus: { vector =, mode =, level = (the trigger) }. Whether it was taken.
local function deliver(d, message)
  local mode, taken = message.mode, true
  if mode == FIXED or mode == LOWEST then
    taken = accept(d, message.vector, message.level)
  elseif mode == SMI then
    signal(d, "smi")
  elseif mode == NMI then
    signal(d, "nmi")
  elseif mode == INIT then
    d:reset(true, d.BASE.value)
    signal(d, "init")
  elseif mode == STARTUP then
    signal(d, "startup", message.vector)
  elseif mode == EXTINT then
    d.extint = true
  end
  d:update()
  return taken
end

-- A local interrupt (11.5.1).
local function local_interrupt(d, lvt)
  if lvt.mask == 1 then return end
  local mode = lvt.mode
  if mode == FIXED then
    accept(d, lvt.vector, lvt.trigger == 1)
  elseif mode == NMI or mode == SMI or mode == INIT then
    deliver(d, { mode = mode, vector = 0 })
  end
end

-- Whether a PIC interrupts through LINT0 or by a message.
local function external(d)
  local lint = d.LVT_LINT0
  return d.extint or d.inputs.lint0.level and lint.mask == 0 and lint.mode == EXTINT
end

local function lint(name)
  return function(d, level)
    if level and d[name].mode ~= EXTINT then local_interrupt(d, d[name]) end
  end
end

--- The vector, as the processor asks for it. One that has gone by now is spurious (11.9).
local function acknowledge(d)
  if external(d) then
    d.extint = false
    local pic = d.options.pic
    local given = pic and pic:acknowledge() or d.SVR.vector
    d:update()
    return given
  end
  local vector = next_vector(d)
  if not vector then return d.SVR.vector end
  put(d, ISR, vector, true)
  put(d, IRR, vector, false)
  d:update()
  return vector
end

-- 11.8.5
local function eoi(d)
  local vector = highest(d, ISR)
  if vector < 0 then return end
  put(d, ISR, vector, false)
  if has(d, TMR, vector) and d.options.eoi then d.options.eoi(vector) end
end

-- ---- Sending (11.6.1) ----

local function send(d)
  local icr, x2 = d.ICR, x2apic.is_on(d)
  local mode, shorthand = icr.mode, icr.shorthand
  local fixed = mode == FIXED or mode == LOWEST
  if fixed and icr.vector < 16 then return fail(d, SEND_ILLEGAL) end
  if mode == INIT and icr.level == 0 then return end -- a de-assertion, which nobody takes any more
  if mode == 3 or mode == EXTINT or not fixed and (shorthand == 1 or shorthand == 2) then return end
  local message = { from = d, vector = icr.vector, mode = mode, logical = icr.logical == 1,
    dest = x2 and d.DESTINATION or d.ICR_HIGH.dest, wide = x2, shorthand = shorthand,
    level = false }
  if d.options.send then
    d.options.send(message)
  elseif shorthand == 1 then
    deliver(d, message)
  end
end

-- ---- Registers ----

-- 11.4.7.2: a LAPIC that is off has its LVT masked, and keeps it so.
local function switch(d)
  if d.SVR.enable == 1 then return end
  for _, name in ipairs(LVT) do d[name].mask = 1 end
end

local function lvt(at, fields, write)
  fields.vector, fields.pending, fields.mask = "7:0", { 12, "ro" }, { 16, reset = 1 }
  return { at = at, fields = fields, write = function(d, ...)
    switch(d)
    if write then write(d, ...) end
  end }
end

local function words(at)
  return { at = at, count = 8, stride = 16, access = "ro" }
end

-- Reserved registers: an error, and zeros (table 11-1).
local function nothing(d)
  fail(d, NO_REGISTER)
  d:update()
  return 0
end

--- Whether a destination means this one (11.6.2); `wide` as in x2apic.lua.
local function is_meant(d, dest, logical, wide)
  if x2apic.is_on(d) then return x2apic.is_meant(d, dest, logical, wide) end
  if wide and dest > 254 then return dest == 0xffffffff end
  if not logical then return dest == 255 or dest == d.ID.id end
  if dest == 255 then return true end
  local own = d.LDR.id
  if d.DFR.model == 15 then return band(dest, own) ~= 0 end
  return floor(dest / 16) == floor(own / 16) and band(dest % 16, own % 16) ~= 0
end

local kind = device "lapic" {
  width = 4, size = 4096, unknown = nothing, holds = "failing",
  options = { id = 0, boot = false, frequency = 1e9, tsc = false, tsc_frequency = 1e9,
    send = false, eoi = false, signal = false, pic = false, x2apic = true, physical = 52,
    moved = function() end },
  registers = {
    ID = { at = 0x20, fields = { id = "31:24" } },
    VERSION = { at = 0x30, access = "const", reset = 0x00050014 }, -- 11.4.8
    TPR = { at = 0x80, fields = { level = "7:0" } },
    APR = { at = 0x90, access = "ro", read = priority },
    PPR = { at = 0xa0, access = "ro", read = priority },
    EOI = { at = 0xb0, access = "wo", write = eoi },
    RRD = { at = 0xc0, access = "ro" },
    LDR = { at = 0xd0, fields = { id = "31:24" } },
    DFR = { at = 0xe0, fields = { model = { "31:28", reset = 15 },
      ones = { "27:0", "const", reset = 0xfffffff } } },
    SVR = { at = 0xf0, write = switch, fields = { vector = { "7:0", reset = 0xff }, enable = 8,
      focus = 9 } },
    ISR = words(0x100), TMR = words(0x180), IRR = words(0x200),
    ESR = { at = 0x280, write = function(d) d.ESR, d.errors = d.errors, 0 end },
    ICR = { at = 0x300, write = send, fields = { vector = "7:0", mode = "10:8", logical = 11,
      pending = { 12, "ro" }, level = 14, trigger = 15, shorthand = "19:18" } },
    ICR_HIGH = { at = 0x310, fields = { dest = "31:24" } },
    LVT_TIMER = lvt(0x320, { mode = "18:17" }, timers.changed),
    LVT_THERMAL = lvt(0x330, { mode = "10:8" }),
    LVT_PERF = lvt(0x340, { mode = "10:8" }),
    LVT_LINT0 = lvt(0x350, { mode = "10:8", polarity = 13, remote = { 14, "ro" }, trigger = 15 }),
    LVT_LINT1 = lvt(0x360, { mode = "10:8", polarity = 13, remote = { 14, "ro" }, trigger = 15 }),
    LVT_ERROR = lvt(0x370, {}),
    INITIAL = { at = 0x380, write = timers.start },
    CURRENT = { at = 0x390, access = "ro", read = timers.count },
    DIVIDE = { at = 0x3e0, fields = { low = "1:0", high = 3 }, write = timers.divide },
    DEADLINE = { at = false, width = 8 }, -- IA32_TSC_DEADLINE
    BASE = { at = false, width = 8, fields = { bootstrap = 8, extended = 10,
      enabled = { 11, reset = 1 }, address = { "51:12", reset = 0xfee00 } } }, -- IA32_APIC_BASE
    DESTINATION = { at = false }, -- the upper half of the ICR in x2APIC mode
  },
  state = { errors = 0, extint = false, step = 2 },
  inputs = { lint0 = lint "LVT_LINT0", lint1 = lint "LVT_LINT1" },
  lines = { intr = function(d) return next_vector(d) ~= nil or external(d) end },
  timers = { timer = function(d)
    if d.LVT_TIMER.mode == 2 then d.DEADLINE = u64(0) end
    if d.LVT_TIMER.mask == 0 then accept(d, d.LVT_TIMER.vector, false) end
  end },
  init = function(d) d.failing = false end,
  loaded = function(d) d.options.moved(d) end,
  -- 11.4.7: INIT leaves the number, and the mode (11.12.5.1). Firmware leaves LINT0 of the first
  -- open for a PIC.
  reset = function(d, init, base)
    d.ID.id = d.options.id % 256
    d.BASE.bootstrap = d.options.boot and 1 or 0
    if base then d.BASE = base else d.options.moved(d) end
    if d.options.boot and not init then
      d.LVT_LINT0 = EXTINT * 256
    end
  end,
  methods = { deliver = deliver, acknowledge = acknowledge, is_meant = is_meant,
    priority = priority, set_deadline = timers.set_deadline, read_msr = x2apic.read,
    write_msr = function(d, msr, value) return x2apic.write(d, msr, value, fail) end },
}

local by = kind.layout.by
ISR, TMR, IRR = by.ISR.slot, by.TMR.slot, by.IRR.slot

return kind
