-- SPDX-License-Identifier: MIT
-- The two 8237A DMA controllers of a PC against Intel's datasheet, with a device that asks for a
-- channel.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local i8237 = require "lunavisor.device.models.i8237"
local raises = helper.raises

local PAGES = { [0] = 7, 3, 1, 2, [5] = 11, [6] = 9, [7] = 10 }
local SIZE = 0x40000

local dma, memory, card, asks

local function out(port, byte) dma.regions.main.write(nil, port, 1, byte) end
local function inp(port) return dma.regions.main.read(nil, port, 1) end
local function out2(port, byte) dma.regions.second.write(nil, port, 1, byte) end
local function inp2(port) return dma.regions.second.read(nil, port, 1) end

-- A channel for a transfer as drivers do it: `mode` without the channel.
local function program(n, gpa, count, mode)
  local function put(port, byte) if n < 4 then out(port, byte) else out2(2 * port, byte) end end
  local own, address = n % 4, n < 4 and gpa or gpa / 2
  put(10, 4 + own)
  put(12, 0)
  put(11, mode + own)
  put(2 * own, address % 256)
  put(2 * own, math.floor(address / 256) % 256)
  put(2 * own + 1, (count - 1) % 256)
  put(2 * own + 1, math.floor((count - 1) / 256))
  dma.regions.pages.write(nil, PAGES[n], 1, math.floor(gpa / 65536))
  put(10, own)
end

-- A card on channel n: `data` is what it has for memory, `got` what came from there.
local function connect(n, data)
  card = { data = data or "", got = "", ends = 0 }
  function card.take(self, count)
    local part = self.data:sub(1, count)
    self.data = self.data:sub(count + 1)
    return part
  end
  function card.give(self, bytes)
    if self.full then return false end
    self.got = self.got .. bytes
  end
  function card.terminal(self)
    self.ends = self.ends + 1
    asks.lines.drq = false
  end
  dma:serve(n, card)
  asks.drq:connect(dma.inputs[n])
end

local function request(level)
  asks.lines.drq = level ~= false
end

before_each(function()
  memory = device.memory(SIZE)
  dma = i8237 { log = false, dma = memory }
  asks = device "asks" { registers = {}, lines = { drq = true } } { log = false }
  out2(0xb * 2, 0xc0) -- channel 4: cascade
  out2(10 * 2, 0)
end)
after_each(function() dma, memory, card, asks = nil, nil, nil, nil end)

describe("a channel", function()
  it("moves bytes to memory, up to its terminal count", function()
    connect(2, "hello, world")
    program(2, 0x21234, 5, 0x44)
    assert.equal(0, inp(8))
    request()
    assert.equal("hello\0", memory:read(0x21234, 6))
    assert.equal(1, card.ends)
    assert.equal(0x04, inp(8))
    assert.equal(0, inp(8)) -- reading clears it
    request() -- masked by its terminal count
    assert.equal(", world", card.data)
    assert.equal(0x40, inp(8))
  end)

  it("moves bytes from memory, and counts on from where it was", function()
    connect(1)
    memory:write(0x100, "abcdef")
    program(1, 0x100, 6, 0x48)
    card.full = true
    request()
    assert.equal(0, card.ends)
    card.full = false
    out(10, 1)
    assert.equal("abcdef", card.got)
    assert.equal(1, card.ends)
  end)

  it("goes on when there is more, in any mode but that of a cascade", function()
    for _, mode in ipairs { 0x04, 0x44, 0x84 } do
      connect(3, "ab")
      program(3, 0x200, 4, mode)
      request()
      assert.equal("ab", memory:read(0x200, 2))
      out(12, 0)
      assert.equal(0x02, inp(6))
      assert.equal(0x02, inp(6))
      assert.equal(0x01, inp(7))
      assert.equal(0x00, inp(7))
      card.data = "cd"
      out(10, 3)
      assert.equal("abcd", memory:read(0x200, 4))
      assert.equal(1, card.ends)
    end
    connect(3, "ef")
    program(3, 0x200, 2, 0xc4)
    request()
    assert.equal("ef", card.data)
  end)

  it("counts down where it is told to", function()
    connect(0, "abc")
    program(0, 0x302, 3, 0x64)
    request()
    assert.equal("cba", memory:read(0x300, 3))
    assert.equal(0x2ff, dma.ADDRESS[0])
  end)

  it("wraps at 64 KiB, without the page", function()
    connect(1, "abcd")
    program(1, 0x1fffe, 4, 0x44)
    request()
    assert.equal("ab", memory:read(0x1fffe, 2))
    assert.equal("cd", memory:read(0x10000, 2))
    assert.equal("\0", memory:read(0x20000, 1))
  end)

  it("begins again with autoinitialization, and is not masked", function()
    connect(1, "abcdef")
    program(1, 0x400, 3, 0x54)
    request()
    assert.equal("abc", memory:read(0x400, 3))
    assert.equal("def", card.data) -- it has let go at its terminal count
    request()
    assert.equal("def", memory:read(0x400, 3))
    assert.equal(2, card.ends)
    assert.equal(0x400, dma.ADDRESS[1])
    assert.equal(2, dma.COUNT[1])
  end)

  it("only counts where it verifies", function()
    connect(2, "abc")
    program(2, 0x500, 3, 0x40)
    request()
    assert.equal("\0\0\0", memory:read(0x500, 3))
    assert.equal("", card.data)
    assert.equal(1, card.ends)
  end)

  it("of the second chip moves words, and wraps at 128 KiB", function()
    connect(5, "abcdef")
    program(5, 0x3fffc, 3, 0x44)
    request()
    assert.equal("abcd", memory:read(0x3fffc, 4))
    assert.equal("ef", memory:read(0x20000, 2))
    assert.equal(0x02, inp2(16))
    assert.equal(1, dma.ADDRESS[5])
  end)

  it("waits where its chip is disabled, or the first is not cascaded", function()
    connect(2, "abc")
    program(2, 0x600, 3, 0x44)
    out(8, 4)
    request()
    assert.equal("abc", card.data)
    out2(10 * 2, 4)
    out(8, 0)
    assert.equal("abc", card.data)
    out2(10 * 2, 0)
    assert.equal("abc", memory:read(0x600, 3))
  end)

  it("gives ones from where there is no memory, and says that", function()
    local said = {}
    dma = i8237 { dma = memory, log = function(text) said[#said + 1] = text end }
    out2(0xb * 2, 0xc0)
    out2(10 * 2, 0)
    connect(1)
    program(1, 0x50000, 2, 0x48)
    request()
    assert.equal("\255\255", card.got)
    assert.truthy(table.concat(said):find "DMA cannot read 2 bytes at gpa 0x50000")
  end)

  it("transfers ones where nobody is at its other end", function()
    asks.drq:connect(dma.inputs[3])
    program(3, 0x700, 2, 0x44)
    request()
    assert.equal("\255\255\0", memory:read(0x700, 3))
  end)
end)

describe("a request of the software", function()
  it("is served in block mode, also masked, until the terminal count", function()
    connect(2, "abcd")
    program(2, 0x800, 2, 0x44)
    out(10, 6)
    out(9, 6)
    assert.equal("abcd", card.data)
    assert.equal(0x40, inp(8))
    out(11, 0x86)
    assert.equal("ab", memory:read(0x800, 2))
    assert.equal(0x04, inp(8))
  end)

  it("copies from channel 0 to channel 1", function()
    memory:write(0x900, "copied")
    program(0, 0x900, 1, 0x88)
    program(1, 0x10a00, 6, 0x84)
    out(8, 1)
    out(9, 4)
    assert.equal("copied", memory:read(0x10a00, 6))
    assert.equal(("d"):byte(), inp(13))
    assert.equal(0x02, inp(8))
    program(0, 0x900, 1, 0x88)
    program(1, 0x10a00, 3, 0x84)
    out(8, 3) -- the address of channel 0 stays
    out(9, 4)
    assert.equal("cccied", memory:read(0x10a00, 6))
  end)
end)

describe("the order", function()
  -- Which of channels 0 and 2 comes first when both wait.
  local function first_of()
    local order = {}
    for _, n in ipairs { 0, 2 } do
      dma:serve(n, { terminal = function() end, give = function() end, take = function()
        order[#order + 1] = n
        return "x"
      end })
      program(n, 0x100, 1, 0x44)
    end
    out(8, dma.COMMAND.rotating == 1 and 0x14 or 4)
    request()
    out(8, dma.COMMAND.rotating == 1 and 0x10 or 0)
    request(false)
    return order[1]
  end

  it("is that of their numbers, or goes on behind the last one", function()
    asks.drq:connect(dma.inputs[0])
    asks.drq:connect(dma.inputs[2])
    assert.equal(0, first_of())
    assert.equal(0, first_of())
    dma.COMMAND.rotating = 1
    dma.chips[0].lowest = 0
    assert.equal(2, first_of())
  end)
end)

describe("the registers", function()
  it("have a byte after the other, by one flip-flop of a chip", function()
    out(0, 0x34)
    out(1, 0x12)
    assert.equal(0x0034, dma.ADDRESS[0])
    assert.equal(0x1200, dma.COUNT[0])
    out(0, 0x56)
    out(12, 0)
    out(0, 0x78)
    out(0, 0x9a)
    assert.equal(0x9a78, dma.BASE_ADDRESS[0])
    assert.equal(0x78, inp(0))
    assert.equal(0x9a, inp(0))
    assert.is_false(dma.chips[1].high)
  end)

  it("of masks set one, all, or none", function()
    out(14, 0)
    assert.equal(0, dma.chips[0].mask)
    out(10, 6)
    assert.equal(4, dma.chips[0].mask)
    out(15, 0x0b)
    assert.equal(0x0b, dma.chips[0].mask)
    out(8, 0x10)
    out(12, 0)
    out(0, 1)
    out(13, 0) -- master clear
    assert.equal(0x0f, dma.chips[0].mask)
    assert.is_false(dma.chips[0].high)
    assert.equal(0, dma.COMMAND.value)
  end)

  it("of pages keep what was written, also those of no channel", function()
    for i = 0, 15 do dma.regions.pages.write(nil, i, 1, 0xf0 - i) end
    for i = 0, 15 do assert.equal(0xf0 - i, dma.regions.pages.read(nil, i, 1)) end
  end)

  it("of both chips are two ports apart in the second, and of the bus where there are none",
    function()
      out2(2 * 2, 0x11)
      out2(2 * 2, 0x22)
      assert.equal(0x2211, dma.ADDRESS[5])
      assert.equal(0xff, inp2(1))
    end)
end)

describe("dma:serve", function()
  it("goes on after a device that has raised", function()
    connect(2, "abc")
    local take = card.take
    function card.take() error "no bytes" end
    program(2, 0x100, 3, 0x44)
    local ok, problem = pcall(request)
    assert.is_false(ok)
    assert.truthy(tostring(problem):find "no bytes")
    card.take = take
    out(10, 2)
    assert.equal("abc", memory:read(0x100, 3))
  end)

  it("takes a channel that is one, and who has the functions", function()
    raises("a channel from 0 to 3 or 5 to 7 expected, got 4", function() dma:serve(4, {}) end)
    raises("a channel from 0 to 3 or 5 to 7 expected, got x", function() dma:serve("x", {}) end)
    raises("a device with the method take expected", function() dma:serve(2, {}) end)
  end)
end)
