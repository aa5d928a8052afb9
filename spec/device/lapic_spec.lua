-- SPDX-License-Identifier: MIT
-- The local APIC against SDM Vol. 3, chapter 11, whose sections are cited, without a VM.

local buses = require "lunavisor.device.models.apic_bus"
local device = require "lunavisor.device"
local lapic = require "lunavisor.device.models.lapic"
local random = require "spec.support.device"
local u64 = require "lunavisor.text.u64"

local ID, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x80, 0xa0, 0xb0, 0xd0, 0xe0, 0xf0
local ISR, TMR, IRR, ESR, ICR, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
local TIMER, LINT0, LINT1, ERROR = 0x320, 0x350, 0x360, 0x370
local INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3e0

local apic, clock, signals

local function rd(at) return apic:read(at, 4) end
local function wr(at, value) apic:write(at, 4, value) end

local function options(more)
  clock, signals = device.clock(), {}
  local all = { clock = clock, log = false, frequency = 1e6, signal = function(_, what, vector)
    signals[#signals + 1] = what .. (vector and (" %x"):format(vector) or "")
  end }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

local function fresh(more)
  apic = lapic(options(more))
  wr(SVR, 0x1ff)
end

before_each(function() fresh() end)

describe("a LAPIC after reset (11.4.7)", function()
  it("is off, with its LVT masked", function()
    apic = lapic(options { id = 3 })
    assert.equal(0x03000000, rd(ID))
    assert.equal(0x00050014, rd(0x30))
    assert.equal(0xff, rd(SVR))
    assert.equal(0xffffffff, rd(DFR))
    for at = TIMER, ERROR, 0x10 do assert.equal(0x10000, rd(at)) end
    apic:deliver { vector = 0x40, mode = 0 }
    assert.is_false(apic.lines.intr)
    wr(TIMER, 0x40)
    assert.equal(0x10040, rd(TIMER)) -- 11.4.7.2
  end)

  it("masks its LVT again when it is switched off", function()
    wr(LINT0, 0x700)
    wr(SVR, 0xff)
    assert.equal(0x10700, rd(LINT0))
  end)

  it("leaves LINT0 of the first one to the PIC", function()
    local pic = { acknowledge = function() return 8 end }
    apic = lapic(options { boot = true, pic = pic })
    apic.inputs.lint0:set(true)
    assert.is_true(apic.lines.intr)
    assert.equal(8, apic:acknowledge())
    apic.inputs.lint0:set(false)
    assert.is_false(apic.lines.intr)
  end)
end)

describe("a LAPIC's interrupts (11.8)", function()
  it("go from IRR to ISR and end with EOI", function()
    assert.is_true(apic:deliver { vector = 0x41, mode = 0 })
    assert.equal(2, rd(IRR + 0x20))
    assert.is_true(apic.lines.intr)
    assert.equal(0x41, apic:acknowledge())
    assert.equal(0, rd(IRR + 0x20))
    assert.equal(2, rd(ISR + 0x20))
    assert.equal(0x40, rd(PPR))
    assert.is_false(apic.lines.intr)
    wr(EOI, 0)
    assert.equal(0, rd(ISR + 0x20))
    assert.equal(0, rd(PPR))
  end)

  it("nest by class, and wait within one", function()
    for _, vector in ipairs { 0x41, 0x4f, 0x52 } do apic:deliver { vector = vector, mode = 0 } end
    assert.equal(0x52, apic:acknowledge())
    assert.is_false(apic.lines.intr)
    apic:deliver { vector = 0xff, mode = 0 }
    assert.equal(0xff, apic:acknowledge())
    wr(EOI, 0)
    assert.equal(0x50, rd(PPR))
    wr(EOI, 0)
    assert.equal(0x4f, apic:acknowledge())
    assert.is_false(apic.lines.intr)
    wr(EOI, 0)
    assert.equal(0x41, apic:acknowledge())
  end)

  it("are held back by the TPR", function()
    apic:deliver { vector = 0x41, mode = 0 }
    wr(TPR, 0x45)
    assert.equal(0x45, rd(PPR))
    assert.is_false(apic.lines.intr)
    wr(TPR, 0x3f)
    assert.is_true(apic.lines.intr)
  end)

  it("are spurious where they are gone (11.9)", function()
    wr(SVR, 0x1ef)
    assert.equal(0xef, apic:acknowledge())
    for at = ISR, ISR + 0x70, 0x10 do assert.equal(0, rd(at)) end
  end)

  it("tell the I/O APICs of the end of level ones alone (11.8.5)", function()
    local ended = {}
    fresh { eoi = function(vector) ended[#ended + 1] = vector end }
    apic:deliver { vector = 0x51, mode = 0, level = true }
    apic:deliver { vector = 0x52, mode = 0 }
    assert.equal(0x20000, rd(TMR + 0x20))
    for _ = 1, 2 do apic:acknowledge() wr(EOI, 0) apic:acknowledge() end
    wr(EOI, 0)
    assert.same({ 0x51 }, ended)
  end)

  it("below 16 are errors (11.5.3)", function()
    wr(ERROR, 0x33)
    assert.is_false(apic:deliver { vector = 15, mode = 0 })
    assert.equal(0x33, apic:acknowledge())
    assert.equal(0, rd(ESR))
    wr(ESR, 0)
    assert.equal(0x40, rd(ESR))
    wr(ICR, 0x0f)
    wr(0x40, 0) -- reserved
    wr(ESR, 0)
    assert.equal(0xa0, rd(ESR))
    wr(ESR, 0)
    assert.equal(0, rd(ESR))
  end)

  it("do not go on for ever where the error's own vector is none", function()
    wr(ERROR, 0x05)
    apic:deliver { vector = 1, mode = 0 }
    wr(ESR, 0)
    assert.equal(0x40, rd(ESR))
  end)

  it("of other modes go past it", function()
    for mode, what in pairs { [2] = "smi", [4] = "nmi", [5] = "init", [6] = "startup 9" } do
      signals = {}
      apic:deliver { vector = 9, mode = mode }
      assert.same({ what }, signals)
    end
    assert.equal(0xff, rd(SVR)) -- INIT has reset it
  end)

  it("come through LINT1 as its mode says", function()
    wr(LINT1, 0x400)
    apic.inputs.lint1:set(true)
    assert.same({ "nmi" }, signals)
    wr(LINT1, 0x61)
    apic.inputs.lint1:set(false)
    apic.inputs.lint1:set(true)
    assert.equal(0x61, apic:acknowledge())
  end)
end)

describe("a LAPIC's timer (11.5.4)", function()
  it("counts down once, by its divisor", function()
    wr(DIVIDE, 0x3) -- 16
    wr(TIMER, 0x40)
    wr(INITIAL, 1000)
    assert.equal(1000, rd(CURRENT))
    clock:advance(0.004)
    assert.equal(750, rd(CURRENT))
    clock:advance(0.0119)
    assert.is_false(apic.lines.intr)
    clock:advance(0.0002)
    assert.equal(0x40, apic:acknowledge())
    assert.equal(0, rd(CURRENT))
    wr(EOI, 0)
    clock:advance(1)
    assert.is_false(apic.lines.intr)
  end)

  it("has eight divisors", function()
    for value, divisor in pairs { [0] = 2, 4, 8, 16, [8] = 32, [9] = 64, [10] = 128, [11] = 1 } do
      wr(DIVIDE, value)
      wr(INITIAL, 1000)
      clock:advance(100 * divisor / 1e6)
      assert.equal(900, rd(CURRENT))
    end
  end)

  it("comes again and again in periodic mode, and stops at 0", function()
    wr(DIVIDE, 0xb)
    wr(TIMER, 0x20040)
    wr(INITIAL, 1000)
    local count = 0
    for _ = 1, 100 do
      clock:advance(0.0001)
      if apic.lines.intr then
        apic:acknowledge()
        wr(EOI, 0)
        count = count + 1
      end
    end
    assert.equal(10, count)
    clock:advance(0.0003)
    assert.equal(700, rd(CURRENT))
    wr(INITIAL, 0)
    clock:advance(1)
    assert.is_false(apic.lines.intr)
  end)

  it("counts while it is masked", function()
    wr(DIVIDE, 0xb)
    wr(TIMER, 0x10040)
    wr(INITIAL, 1000)
    clock:advance(0.0005)
    assert.equal(500, rd(CURRENT))
    clock:advance(0.0006)
    assert.is_false(apic.lines.intr)
  end)

  it("waits for a deadline of the time-stamp counter (11.5.4.1)", function()
    fresh { tsc = function() return 1000 + math.floor(clock.now * 1e6) end, tsc_frequency = 1e6 }
    wr(TIMER, 0x40040)
    wr(INITIAL, 5)
    assert.equal(0, rd(INITIAL))
    apic:set_deadline(u64(3000))
    assert.equal(u64(3000), apic.DEADLINE)
    clock:advance(0.0019)
    assert.is_false(apic.lines.intr)
    assert.equal(0, rd(CURRENT))
    clock:advance(0.0002)
    assert.equal(0x40, apic:acknowledge())
    assert.equal(u64(0), apic.DEADLINE)
    wr(EOI, 0)
    apic:set_deadline(u64(1)) -- gone by
    clock:advance(0)
    assert.is_true(apic.lines.intr)
    apic:acknowledge()
    wr(EOI, 0)
    apic:set_deadline(u64(1000000))
    apic:set_deadline(0)
    clock:advance(10)
    assert.is_false(apic.lines.intr)
    wr(TIMER, 0x40)
    apic:set_deadline(u64(5))
    assert.equal(u64(0), apic.DEADLINE)
  end)

  it("goes on in a state that is loaded", function()
    wr(DIVIDE, 0xb)
    wr(TIMER, 0x20040)
    wr(INITIAL, 1000)
    clock:advance(0.0007)
    local saved = apic:save()
    fresh()
    assert(apic:load(saved))
    assert.equal(300, rd(CURRENT))
    clock:advance(0.00031)
    assert.is_true(apic.lines.intr)
  end)
end)

describe("an APIC bus (11.6)", function()
  local bus, list

  before_each(function()
    bus, list = buses.new(), {}
    for i = 0, 2 do
      list[i] = bus:lapic(options())
      list[i]:write(SVR, 4, 0x1ff)
      list[i]:write(LDR, 4, 2 ^ (24 + i))
    end
    apic = list[0]
  end)

  local function who(vector)
    local text = ""
    for i = 0, 2 do
      if list[i].lines.intr and list[i]:acknowledge() == vector then text = text .. i end
      list[i]:write(EOI, 4, 0)
    end
    return text
  end

  local function ipi(low, dest)
    wr(ICR_HIGH, (dest or 0) * 2 ^ 24)
    wr(ICR, low)
  end

  it("knows physical destinations and shorthands", function()
    ipi(0x51, 2)
    assert.equal("2", who(0x51))
    ipi(0x51, 255)
    assert.equal("012", who(0x51))
    ipi(0x40051)
    assert.equal("0", who(0x51))
    ipi(0x80051)
    assert.equal("012", who(0x51))
    ipi(0xc0051)
    assert.equal("12", who(0x51))
    assert.equal(0xc0051, rd(ICR))
  end)

  it("knows logical destinations, flat and by cluster (11.6.2.2)", function()
    ipi(0x851, 5)
    assert.equal("02", who(0x51))
    ipi(0x851, 8)
    assert.equal("", who(0x51))
    for i = 0, 2 do
      list[i]:write(DFR, 4, 0)
      list[i]:write(LDR, 4, ({ [0] = 0x11, 0x12, 0x21 })[i] * 2 ^ 24)
    end
    ipi(0x851, 0x13)
    assert.equal("01", who(0x51))
    ipi(0x851, 0x21)
    assert.equal("2", who(0x51))
  end)

  it("finds the lowest priority that is on (11.6.2.4)", function()
    list[0]:write(TPR, 4, 0x30)
    list[1]:write(SVR, 4, 0xff)
    ipi(0x951, 7)
    assert.equal("2", who(0x51))
  end)

  it("takes messages of devices (11.11)", function()
    assert.is_true(bus:message(0xfee01000, 0x61))
    assert.equal("1", who(0x61))
    assert.is_true(bus:message(0xfee06004, 0x61))
    assert.equal("12", who(0x61))
    assert.is_false(bus:message(0xfee09000, 0x61))
    local ok, message = bus:message(u64("0x1fee00000"), 0x61)
    assert.is_nil(ok)
    assert.equal("a message to 0x1fee00000: no LAPIC is there", message)
  end)

  it("sends INIT and start-up, but no de-assertion of INIT", function()
    ipi(0xc4500)
    assert.same({ "init", "init" }, signals)
    ipi(0xc8500)
    ipi(0xc4609)
    assert.same({ "init", "init", "startup 9", "startup 9" }, signals)
  end)
end)

random.describe("lapic", function(log)
  return lapic { log = log, signal = function() end }
end, function(made, next)
  made:deliver { vector = next(256), mode = next(8), level = next(2) == 0 }
  made.inputs.lint0:set(next(2))
  made.inputs.lint1:set(next(2))
  if next(2) == 0 then made:acknowledge() end
  made:set_deadline(u64(next(2 ^ 31)))
end)
