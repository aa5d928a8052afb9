-- SPDX-License-Identifier: MIT
-- Accesses of the guest that are no register's own: partial, wide, unaligned, big endian, unknown;
-- against a model of bytes. No VM is needed.

local device = require "lunavisor.device"
local luna = require "lunavisor"
local bits = require "lunavisor.device.bits"
local helper = require "spec.support.helper"

local function make(spec)
  return device "d"(spec) { log = false }
end

describe("a partial access", function()
  it("reads and writes its bytes", function()
    local dev = make { registers = { A = { at = 0, reset = 0x11223344 } } }
    assert.equal(0x44, dev:read(0, 1))
    assert.equal(0x1122, dev:read(2, 2))
    assert.equal(0x112233, dev:read(1, 3))
    dev:write(1, 2, 0xaabb)
    assert.equal(0x11aabb44, dev.A)
  end)

  it("clears no bits of other bytes", function()
    for access, result in pairs { w1c = 0xff00ffff, w0c = 0xffffffff, toggle = 0xff00ffff } do
      local dev = make { registers = { A = { at = 0, access = access } } }
      dev.A = 0xffffffff
      dev:write(2, 1, 0xff)
      assert.equal(result, dev.A, access)
    end
  end)

  it("reaches hooks as one of the whole register", function()
    local seen
    local dev = make { registers = { A = { at = 0, reset = 0x100, write = function(_, ...)
      seen = { ... }
    end } } }
    dev:write(0, 1, 5)
    assert.same({ 0x105, 0x100, 0x105 }, seen)
  end)

  it("is nobody's where the table refuses it", function()
    local dev = make { narrow = "refuse", registers = { A = { at = 0 },
      B = { at = 4, narrow = "merge", reset = 7 } } }
    dev:write(0, 1, 5)
    assert.equal(0, dev.A)
    assert.equal(0xff, dev:read(0, 1))
    assert.equal(7, dev:read(4, 1))
  end)
end)

describe("a wide access", function()
  it("is taken apart, each register once and in order", function()
    local seen = {}
    local function note(name)
      return function(_, new) seen[#seen + 1] = name .. new end
    end
    local dev = make { width = 1, registers = {
      A = { at = 0, write = note "A" }, B = { at = 1, write = note "B" } } }
    dev:write(0, 2, 0x0201)
    assert.same({ "A1", "B2" }, seen)
    assert.equal(0x0201, dev:read(0, 2))
  end)

  it("of 8 bytes is a u64", function()
    local dev = make { registers = { A = { at = 0 }, B = { at = 4 } } }
    dev:write(0, 8, luna.u64 "0x1122334455667788")
    assert.equal(0x55667788, dev.A)
    assert.equal(0x11223344, dev.B)
    assert.is_true(dev:read(0, 8) == luna.u64 "0x1122334455667788")
    assert.equal("0x2233445566", luna.hex(dev:read(2, 5)))
  end)
end)

describe("a register of 8 bytes", function()
  it("is a u64, and can be had in halves", function()
    local dev = make { width = 8, registers = { A = { at = 0, fields = { low = "31:0",
      high = "63:32" } } } }
    dev:write(4, 4, 0x80000001)
    dev:write(0, 4, 2)
    assert.is_true(dev.A.value == luna.u64 "0x8000000100000002")
    assert.equal(0x80000001, dev.A.high)
    assert.is_true(dev:read(0, 8) == luna.u64 "0x8000000100000002")
    dev.A = 5
    assert.equal(5, dev:read(0, 4))
  end)
end)

describe("a big-endian device", function()
  it("has the highest byte first", function()
    local dev = make { endian = "big", registers = { A = { at = 0, reset = 0x11223344 },
      B = { at = 4, width = 2, reset = 0x5566 }, C = { at = 6, width = 1, reset = 0x77 } } }
    assert.equal(0x44332211, dev:read(0, 4))
    assert.equal(0x11, dev:read(0, 1))
    assert.equal(0x6655, dev:read(4, 2))
    assert.equal(0x77, dev:read(6, 1))
    dev:write(1, 1, 0xaa)
    assert.equal(0x11aa3344, dev.A)
    dev:write(0, 4, 0x04030201)
    assert.equal(0x01020304, dev.A)
  end)
end)

describe("what nobody owns", function()
  it("is as the table says", function()
    for policy, value in pairs { ones = 0xffff, zeros = 0 } do
      local dev = make { unknown = policy, registers = {} }
      assert.equal(value, dev:read(0, 2))
      dev:write(0, 2, 1)
    end
    local dev = make { unknown = "error", registers = { A = { at = 0 } } }
    helper.contains("d: the guest reads 4 bytes at offset 0x4, where no register is",
      select(2, pcall(dev.read, dev, 4, 4)))
    helper.contains("d: the guest writes 1 byte at offset 0x4",
      select(2, pcall(dev.write, dev, 4, 1, 1)))
  end)

  it("comes to a function with what the access is", function()
    local seen = {}
    local dev = make { registers = { A = { at = 0, reset = 0x11111111 } },
      unknown = function(_, access)
        seen[#seen + 1] = access
        return 0x2222
      end }
    assert.equal(0x22221111, dev:read(2, 4))
    dev:write(4, 2, 9)
    assert.same({ { offset = 4, size = 2, access = "r", region = "main" },
      { offset = 4, size = 2, access = "w", region = "main", value = 9 } }, seen)
  end)

  it("is said once and counted", function()
    local said = {}
    local dev = device "d" { registers = {} } { log = function(text) said[#said + 1] = text end }
    for _ = 1, 3 do dev:read(8, 4) end
    assert.same({ "d: read of 4 bytes at offset 0x8, where no register is" }, said)
    assert.equal(3, dev.unknowns["main r 8 4"].count)
  end)
end)

-- Registers of all widths side by side, and a model: a string of bytes.
describe("any access", function()
  for _, endian in ipairs { "little", "big" } do
    it("is what a " .. endian .. "-endian model of bytes says", function()
      local widths, at, registers = { 4, 1, 1, 2, 8, 2, 2, 4 }, 0, {}
      for i, width in ipairs(widths) do
        registers["R" .. i] = { at = at, width = width }
        at = at + width
      end
      local dev = make { endian = endian, registers = registers }
      local model, seed = {}, 1
      for i = 0, at - 1 do model[i] = 0 end
      local function random(n)
        seed = seed * 16807 % 2147483647
        return seed % n
      end
      for _ = 1, 2000 do
        local size = 1 + random(8)
        local offset = random(at - size + 1)
        local list = {}
        if random(2) == 0 then
          for i = 1, size do
            list[i] = random(256)
            model[offset + i - 1] = list[i]
          end
          dev:write(offset, size, bits.value(list, size))
        else
          for i = 1, size do list[i] = model[offset + i - 1] end
          local value = dev:read(offset, size)
          if value ~= bits.value(list, size) then
            error(("%d bytes at %d: %s, not %s"):format(size, offset, luna.hex(value),
              luna.hex(bits.value(list, size))))
          end
        end
      end
    end)
  end
end)

describe("a register with block functions", function()
  local function port(more)
    local entry = { at = 0, width = 1, read = function(d) return d.given end,
      block = { read = function(d, count)
        d.given = d.given + count
        return ("xyzabcdefgh"):sub(1, count)
      end, write = function(d, bytes) d.taken = d.taken .. bytes end } }
    for key, value in pairs(more or {}) do entry[key] = value end
    return make { width = 1, size = 4, registers = { PORT = entry, NEXT = { at = 1, reset = 9 } },
      state = { given = 0, taken = "" },
      lines = { much = function(d) return d.given > 5 or #d.taken > 5 end } }
  end

  it("takes and gives string I/O in one call", function()
    local dev = port()
    assert.equal("xyzabcde", dev.regions.main.read_block(nil, 0, 2, 4))
    assert.equal(8, dev:read(0, 1))
    assert.is_true(dev.lines.much)
    dev:reset()
    dev:update()
    assert.is_false(dev.lines.much)
    dev:write_block(0, 2, "abcdef")
    assert.equal("abcdef", dev.taken)
    assert.is_true(dev.lines.much)
  end)

  it("takes accesses that are wider than it, and leaves those to its neighbours", function()
    local dev = port()
    assert.equal(0x617a7978, dev:read(0, 4))
    assert.equal(0x7978, dev:read(0, 2))
    assert.equal(9, dev:read(1, 1))
    dev:write(0, 4, 0x44434241)
    assert.equal("ABCD", dev.taken)
    dev:write(0, 1, 7)
    assert.same({ 7, "ABCD", 9 }, { dev.PORT, dev.taken, dev.NEXT })
  end)

  it("leaves string I/O elsewhere to single accesses", function()
    local dev = port()
    assert.equal("\9\9\9", dev:read_block(1, 1, 3))
    dev:write_block(1, 1, "\1\2")
    assert.equal(2, dev.NEXT)
    dev = port { when = function(d) return d.NEXT == 1 end }
    assert.equal("\255\9", dev:read_block(0, 2, 1))
    dev.NEXT = 1
    assert.equal("xy", dev:read_block(0, 2, 1))
  end)

  it("says what its function gave, where that is no block", function()
    local dev = port { block = { read = function() return "abc" end } }
    local _, message = pcall(dev.read, dev, 0, 4)
    assert.equal("PORT: block.read gave one of 3, and a string of 4 bytes is expected", message)
    assert.is_nil(dev.write_block)
    dev:write(0, 2, 0x0102)
    assert.same({ 2, 1 }, { dev.PORT, dev.NEXT })
  end)
end)
