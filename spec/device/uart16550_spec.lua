-- SPDX-License-Identifier: MIT
-- The 16550A against its datasheet, on a plain bus.

local device = require "lunavisor.device"
local stream = require "lunavisor.device.models.stream"
local random = require "spec.support.device"
local uart16550 = require "lunavisor.device.models.uart16550"

local IER, IIR, FCR, LCR, MCR, LSR, MSR = 1, 2, 2, 3, 4, 5, 6

local out, clock, uart

local function rd(at) return uart:read(at, 1) end
local function wr(at, value) uart:write(at, 1, value) end

local function fresh(options)
  out, clock = stream.ring(), device.clock()
  options = options or {}
  options.output, options.clock, options.log = options.output or out, clock, false
  uart = uart16550(options)
end

describe("the UART", function()
  before_each(function() fresh() end)

  it("sends what is written and has room at once", function()
    for byte in ("hello"):gmatch "." do wr(0, byte:byte()) end
    assert.equal("hello", out:text())
    assert.equal(0x60, rd(LSR))
  end)

  it("has its divisor in place of data and IER while DLAB is set", function()
    wr(LCR, 0x83)
    wr(0, 12)
    wr(1, 1)
    assert.equal(12, rd(0))
    assert.equal(1, rd(1))
    wr(LCR, 3)
    assert.equal(0, rd(IER))
    assert.equal("", out:text())
    assert.equal(0x10c, uart.DLM * 256 + uart.DLL)
  end)

  it("answers and stores its reserved bits as 0", function()
    wr(IER, 0xff)
    assert.equal(0x0f, rd(IER))
    wr(MCR, 0xff)
    assert.equal(0x1f, rd(MCR))
    wr(7, 0xa5)
    assert.equal(0xa5, rd(7))
  end)

  it("receives what is fed as there is room", function()
    uart:feed "abc"
    local got = {}
    while rd(LSR) % 2 == 1 do got[#got + 1] = string.char(rd(0)) end
    assert.equal("abc", table.concat(got))
    assert.equal(0, rd(LSR) % 32)
  end)

  it("overruns without FIFOs: the new character is kept", function()
    uart:receive(0x41)
    uart:receive(0x42)
    assert.equal(0x63, rd(LSR))
    assert.equal(0x61, rd(LSR))
    assert.equal(0x42, rd(0))
  end)

  it("overruns with FIFOs: the new character is lost", function()
    wr(FCR, 1)
    for i = 1, 17 do uart:receive(i) end
    assert.equal(0x63, rd(LSR))
    for i = 1, 16 do assert.equal(i, rd(0)) end
    assert.equal(0x60, rd(LSR))
  end)

  it("shows an error when its character is the next to be read", function()
    wr(FCR, 1)
    uart:receive(1)
    uart:receive(2, 0x04)
    assert.equal(0xe1, rd(LSR))
    rd(0)
    assert.equal(0x65, rd(LSR))
    assert.equal(0x61, rd(LSR))
  end)
end)

describe("the UART's FIFOs", function()
  before_each(function() fresh() end)

  it("are told by IIR and emptied when switched on or off", function()
    assert.equal(0x01, rd(IIR))
    uart:receive(1)
    wr(FCR, 1)
    assert.equal(0xc1, rd(IIR))
    assert.equal(0x60, rd(LSR))
    uart:receive(1)
    wr(FCR, 0)
    assert.equal(0x01, rd(IIR))
    assert.equal(0x60, rd(LSR))
  end)

  it("are cleared by their bits, which do not stay", function()
    wr(FCR, 1)
    uart:receive(1)
    wr(FCR, 0x07)
    assert.equal(0x60, rd(LSR))
    assert.equal(1, uart.FCR.value)
  end)

  it("ignore the reserved bits", function()
    wr(FCR, 0x31)
    assert.equal(1, uart.FCR.value)
  end)

  it("take no bits without the enable", function()
    wr(FCR, 0xc0)
    assert.equal(0, uart.FCR.value)
    assert.equal(1, uart.RBR.trigger)
  end)

  for bits, trigger in pairs { [0x00] = 1, [0x40] = 4, [0x80] = 8, [0xc0] = 14 } do
    it(("interrupt at %d"):format(trigger), function()
      wr(IER, 1)
      wr(FCR, bits + 1)
      for i = 1, trigger - 1 do uart:receive(i) end
      assert.is_false(uart.lines.irq)
      uart:receive(0)
      assert.is_true(uart.lines.irq)
      assert.equal(0xc4, rd(IIR))
      rd(0)
      assert.is_false(uart.lines.irq)
    end)
  end

  it("time out four characters after the last that came or was read", function()
    wr(LCR, 0x83)
    wr(0, 12) -- 9600 baud
    wr(LCR, 0x03)
    wr(FCR, 0xc1)
    wr(IER, 1)
    local character = 10 / 9600
    uart:receive(1)
    clock:advance(3.9 * character)
    uart:receive(2)
    clock:advance(3.9 * character)
    assert.is_false(uart.lines.irq)
    clock:advance(0.2 * character)
    assert.is_true(uart.lines.irq)
    assert.equal(0xcc, rd(IIR))
    rd(0)
    assert.is_false(uart.lines.irq)
    clock:advance(4.1 * character)
    assert.equal(0xcc, rd(IIR))
    rd(0)
    clock:advance(100 * character)
    assert.equal(0xc1, rd(IIR))
  end)
end)

describe("the UART's interrupts", function()
  before_each(function() fresh() end)

  it("say that the holding register is empty when they are enabled", function()
    assert.is_false(uart.lines.irq)
    wr(IER, 2)
    assert.is_true(uart.lines.irq)
    assert.equal(2, rd(IIR))
    assert.is_false(uart.lines.irq)
    assert.equal(1, rd(IIR))
    wr(IER, 2)
    assert.is_false(uart.lines.irq)
    wr(IER, 0)
    wr(IER, 2)
    assert.is_true(uart.lines.irq)
    rd(IIR)
    wr(0, 0x41)
    assert.is_true(uart.lines.irq)
  end)

  it("have their priorities, and each ends in its own way", function()
    wr(IER, 0x0f)
    uart.inputs.cts:set(false)
    uart:receive(1, 0x08)
    assert.equal(6, rd(IIR))
    rd(LSR)
    assert.equal(4, rd(IIR))
    rd(0)
    assert.equal(2, rd(IIR))
    assert.equal(0, rd(IIR))
    rd(MSR)
    assert.equal(1, rd(IIR))
    assert.is_false(uart.lines.irq)
  end)

  it("do not end by reading IIR for another reason", function()
    wr(IER, 0x03)
    uart:receive(1)
    assert.equal(4, rd(IIR))
    rd(0)
    assert.equal(2, rd(IIR))
  end)

  it("pass a PC's gate, OUT2, if asked to", function()
    fresh { gated = true }
    wr(IER, 2)
    assert.is_false(uart.lines.irq)
    wr(MCR, 8)
    assert.is_true(uart.lines.irq)
  end)
end)

describe("the UART's modem lines", function()
  before_each(function() fresh() end)

  it("show their levels and what has changed since the last read", function()
    assert.equal(0xb0, rd(MSR))
    uart.inputs.dsr:set(false)
    uart.inputs.dcd:set(false)
    assert.equal(0x1a, rd(MSR))
    assert.equal(0x10, rd(MSR))
    uart.inputs.ri:set(true)
    assert.equal(0x50, rd(MSR))
    uart.inputs.ri:set(false)
    assert.equal(0x14, rd(MSR))
  end)

  it("follow MCR", function()
    wr(MCR, 3)
    assert.is_true(uart.lines.dtr)
    assert.is_true(uart.lines.rts)
    assert.is_false(uart.lines.out1)
  end)

  it("come back in loopback, and are quiet outside", function()
    wr(MCR, 0x1f)
    assert.equal(0xf0, rd(MSR) - rd(MSR) % 16)
    assert.is_false(uart.lines.rts)
    wr(MCR, 0x1a)
    assert.equal(0x96, rd(MSR))
    wr(MCR, 0x10)
    assert.equal(0x09, rd(MSR))
  end)

  it("are not there without a carrier", function()
    fresh { carrier = false }
    assert.equal(0, rd(MSR))
  end)
end)

describe("the UART in loopback", function()
  before_each(function() fresh() end)

  it("receives what it sends, and neither sends nor receives outside", function()
    wr(MCR, 0x10)
    wr(0, 0x5a)
    uart:receive(0x11)
    uart:feed "x"
    assert.equal(0x5a, rd(0))
    assert.equal("", out:text())
    assert.equal(0x60, rd(LSR))
    wr(MCR, 0)
    assert.equal(("x"):byte(), rd(0))
  end)

  it("has a FIFO of 16, as drivers measure it", function()
    wr(FCR, 7)
    wr(MCR, 0x10)
    for i = 0, 255 do wr(0, i) end
    local count = 0
    while rd(LSR) % 2 == 1 do
      rd(0)
      count = count + 1
    end
    assert.equal(16, count)
  end)

  it("receives its own break", function()
    wr(MCR, 0x10)
    wr(LCR, 0x43)
    assert.equal(0x71, rd(LSR))
    assert.equal(0, rd(0))
  end)
end)

describe("the UART's host side", function()
  it("is a function, a ring buffer, a file or nothing", function()
    local got = {}
    fresh { output = function(text) got[#got + 1] = text end }
    wr(0, 65)
    assert.same({ "A" }, got)
    local file = assert(io.tmpfile())
    fresh { output = file }
    wr(0, 66)
    file:seek "set"
    assert.equal("B", file:read "*a")
    file:close()
    uart16550():write(0, 1, 67)
  end)

  it("refuses what cannot be written to", function()
    local ok, message = pcall(uart16550, { output = 5 })
    assert.is_false(ok)
    assert.truthy(message:find("uart16550: output: a function, an open file", 1, true), message)
  end)

  it("keeps the last of a ring buffer", function()
    local ring = stream.ring(4)
    for i = 0, 25 do ring:write(string.char(97 + i)) end
    assert.equal("wxyz", ring:text())
    assert.equal("wxyz", ring:take())
    assert.equal("", ring:text())
  end)
end)

it("a UART's state is complete", function()
  fresh()
  wr(FCR, 0xc1)
  wr(IER, 1)
  uart:receive(7)
  uart:feed(("x"):rep(20))
  local saved = uart:save()
  fresh()
  assert.is_true(uart:load(saved))
  assert.same(saved.registers, uart:save().registers)
  assert.is_true(uart.lines.irq)
  assert.equal(7, rd(0))
  assert.equal("xxxx", uart.waiting)
end)

random.describe("uart16550", function(log) return uart16550 { log = log } end)
