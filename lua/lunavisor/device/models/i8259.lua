-- SPDX-License-Identifier: MIT
-- An 8259A interrupt controller, by Intel's datasheet (December 1988), whose headings are in
-- quotes, in 8086 mode, with the ELCR of chipsets. A master has `slaves`, chips by its inputs:
-- i8259 { slaves = { [2] = slave } }. pic:acknowledge() is the processor's INTA.

local device = require "lunavisor.device"
local word = require "lunavisor.device.word"

local bits, insert = word.bits, word.insert

-- The input that interrupts now: the first by priority, unless one as high is in service. Masked
-- ones do not hold others back in "SPECIAL MASK MODE", a slave not itself in "THE SPECIAL FULLY
-- NESTED MODE".
local function highest(d)
  for i = 1, 8 do
    local n = (d.lowest + i) % 8
    local masked, serving = bits(d.MASK, n) == 1, bits(d.isr, n) == 1
    if bits(d.irr, n) == 1 and not masked
      and (not serving or bits(d.icw[4], 4) == 1 and d.options.slaves[n]) then
      return n
    elseif serving and not (masked and d.special) then
      return nil
    end
  end
end

-- Takes an input into service, or not where it ends at once ("AUTOMATIC END OF INTERRUPT").
local function serve(d, n)
  if bits(d.icw[1], 3) == 0 and bits(d.ELCR, n) == 0 then d.irr = insert(d.irr, n, 1, 0) end
  if bits(d.icw[4], 1) == 0 then
    d.isr = insert(d.isr, n, 1, 1)
  elseif d.rotating then
    d.lowest = n
  end
  d.pausing = true -- INT falls at every INTA
  d:update()
  d.pausing = false
  d:update()
end

--- The vector of the interrupt. One that has gone by now is a spurious 7 ("INTERRUPT SEQUENCE").
local function acknowledge(d)
  local n = highest(d)
  if n then serve(d, n) end
  local slave = n and d.options.slaves[n]
  return slave and slave:acknowledge() or d.icw[2] - d.icw[2] % 8 + (n or 7)
end

-- The highest input in service, which an EOI that names none ends.
local function serving(d)
  for i = 1, 8 do
    local n = (d.lowest + i) % 8
    if bits(d.isr, n) == 1 and not (d.special and bits(d.MASK, n) == 1) then return n end
  end
end

-- OCW2 ("OPERATION COMMAND WORD 2"): R, SL and EOI, then a level.
local function ocw2(d, value)
  local rotate, specific, eoi = bits(value, 7) == 1, bits(value, 6) == 1, bits(value, 5) == 1
  if not specific and not eoi then
    d.rotating = rotate
    return
  end
  local n = value % 8
  if not specific then n = serving(d) end
  if not n then return end
  if eoi then d.isr = insert(d.isr, n, 1, 0) end
  if rotate then d.lowest = n end
end

-- OCW3: special mask mode, "POLL COMMAND", "READING THE 8259A STATUS".
local function ocw3(d, value)
  if bits(value, 6) == 1 then d.special = bits(value, 5) == 1 end
  d.polled = bits(value, 2) == 1
  if bits(value, 1) == 1 then d.shown = bits(value, 0) == 1 and "isr" or "irr" end
end

-- What "INITIALIZATION COMMAND WORD 1" does; an edge before it does not count any more.
local function icw1(d, value)
  d.icw, d.step, d.isr, d.irr = { value, d.icw[2], d.icw[3], 0 }, 2, 0, 0
  d.lowest, d.special, d.rotating, d.polled, d.shown, d.MASK = 7, false, false, false, "irr", 0
  for n = 0, 7 do
    if bits(value, 3) == 1 or bits(d.ELCR, n) == 1 then
      d.irr = insert(d.irr, n, 1, d.inputs[n].level and 1 or 0)
    end
  end
end

-- ICW2, ICW3 unless there is one chip alone, ICW4 where it is announced.
local function next_word(d, value, mask)
  d.icw[d.step], d.MASK = value, mask
  local single, fourth = bits(d.icw[1], 1) == 1, bits(d.icw[1], 0) == 1
  d.step = d.step == 2 and not single and 3 or d.step < 4 and fourth and 4 or 0
end

local function poll(d)
  if not d.polled then return nil end
  d.polled = false
  local n = highest(d)
  if n then serve(d, n) end
  return n and 0x80 + n or 0
end

return device "i8259" {
  width = 1, options = { slaves = {}, levels = 0xff },
  regions = {
    main = { registers = {
      COMMAND = { at = 0, access = "wo", write = function(d, value)
        (bits(value, 4) == 1 and icw1 or bits(value, 3) == 1 and ocw3 or ocw2)(d, value)
      end },
      STATUS = { at = 0, access = "ro", precious = true,
        read = function(d) return poll(d) or d[d.shown] end },
      MASK = { at = 1, read = poll, precious = true, write = function(d, value, old)
        if d.step > 0 then next_word(d, value, old) end
      end },
    } },
    elcr = { registers = { ELCR = { at = 0,
      write = function(d, value) d.ELCR = word.band(value, d.options.levels) end } } },
  },
  state = { irr = 0, isr = 0, icw = { 0, 0, 0, 0 }, step = 0, lowest = 7, special = false,
    rotating = false, polled = false, shown = "irr", pausing = false },
  inputs = 8, input = function(d, n, level) d.irr = insert(d.irr, n, 1, level and 1 or 0) end,
  lines = { int = function(d) return not d.pausing and highest(d) ~= nil end },
  init = function(d, options)
    for n, slave in pairs(options.slaves) do slave.int:connect(d.inputs[n]) end
  end,
  methods = { acknowledge = acknowledge },
}
