-- SPDX-License-Identifier: MIT
-- The datasheet of a device from its table, what of it is not modelled, and the draft of a table
-- from what a driver did. No VM is needed but for one test.

local device = require "lunavisor.device"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local function gadget()
  return device "gadget" { doc = "A gadget.", registers = {
    CTRL = { at = 0, reset = 0x10, fields = {
      on = 0, mode = { "2:1", enum = { slow = 0, fast = 2 }, doc = "how" },
      level = { "7:4", todo = "3.1" },
    } },
    STATUS = { at = 4, access = "w1c" }, DATA = { at = 8, fifo = 16, todo = "3.2" },
    TABLE = { at = 0x10, count = 4 }, BIG = { at = 0x20, width = 8 },
  }, lines = { irq = { status = "STATUS", mask = 1, gate = "CTRL.on" } } }
end

describe("device.describe", function()
  it("prints a table of registers, and one of fields", function()
    local text = device.describe(gadget())
    for _, line in ipairs {
      "# gadget\n\nA gadget.\n", "| Offset | Register | Bytes | Access | Reset |  |",
      "| 0x00 | CTRL | 4 | rw | 0x00000010 |  |",
      "| 0x08 | DATA | 4 | rw | 0x00000000 | FIFO of 16; not modelled: 3.2 |",
      "| 0x10 | TABLE | 4 | rw | 0x00000000 | 4 of them, 4 bytes apart |",
      "### CTRL (0x00)", "| 7:4 | level | rw | 0x1 | not modelled: 3.1 |",
      "| 2:1 | mode | rw | 0x0 | how; 0x0 slow; 0x2 fast |",
      "- `irq`: STATUS & 0x1 while CTRL.on",
    } do helper.contains(line, text) end
  end)

  it("shows what the elements of an array are reset to", function()
    local text = device.describe(device "gadget" { width = 1, registers = {
      ID = { at = 0, count = 4, access = "const", reset = { 0x31, 0x10 } },
      NAME = { at = 4, count = 9, access = "ro", reset = "lunavisor" },
    } })
    helper.contains("| ID | 1 | const | 0x31 0x10 0x00 0x00 | 4 of them, 1 byte apart |", text)
    helper.contains("| 0x6c 0x75 0x6e 0x61 0x76 0x69 0x73 0x6f ... | 9 of them", text)
  end)

  it("draws the bits of each register once", function()
    local text = device.describe(gadget() { log = false }, "svg")
    helper.contains('<svg xmlns="http://www.w3.org/2000/svg"', text)
    local _, boxes = text:gsub("<rect ", "")
    assert.equal(5 + 4, boxes) -- CTRL has three fields and two gaps
    local _, opened = text:gsub("<text ", "")
    local _, closed = text:gsub("</text>", "")
    assert.equal(opened, closed)
    helper.contains(">mode</text>", text)
    -- The boxes of a register are side by side, as wide as its bits.
    local widths = 0
    for width in text:match("CTRL %(0x00%)(.-)STATUS"):gmatch '<rect [^>]-width="([%d.]+)"' do
      widths = widths + tonumber(width)
    end
    assert.equal(32 * 28, widths)
  end)

  it("refuses what is no device and no form", function()
    raises("device.describe: a device or a class", function() device.describe {} end)
    raises("device.describe: 'markdown' or 'svg' expected, got pdf",
      function() device.describe(gadget(), "pdf") end)
  end)
end)

describe("device.coverage", function()
  it("lists what is not modelled, and how often a guest has changed it", function()
    local dev = gadget() { log = false }
    dev:write(0, 4, 0x20)
    dev:write(0, 4, 0x30)
    assert.equal("gadget.CTRL.level: 3.1, changed 2 times\ngadget.DATA: 3.2",
      tostring(device.coverage(dev)))
    assert.equal("gadget.CTRL.level: 3.1\ngadget.DATA: 3.2", tostring(device.coverage(gadget())))
    raises("device.coverage: a device or a class", function() device.coverage(5) end)
  end)

  it("is of all classes that were made, where nothing is said", function()
    local kept = device "only_here" { registers = { A = { at = 0, todo = "1" } } }
    local found = 0
    for _, entry in ipairs(device.coverage()) do
      if entry.device == "only_here" then found = found + 1 end
    end
    assert.equal(1, found)
    assert.equal("only_here", kept.name)
  end)
end)

describe("device.explore", function()
  local function explorer()
    return device.explore { size = 0x20, name = "thing" }
  end

  -- Reads until `done`, at most so often; how often it was.
  local function wait(e, offset, done)
    for i = 1, 500 do
      if done(e:read(offset, 4)) then return i end
    end
    error("it waits for ever", 2)
  end

  it("remembers what was written, byte by byte of each place", function()
    local e = explorer()
    assert.equal(0, e:read(4, 4))
    e:write(4, 4, 0x12345678)
    assert.equal(0x12345678, e:read(4, 4))
    assert.equal(0x5678, e:read(4, 2))
    assert.same({ access = "w", offset = 4, size = 4, value = 0x12345678 }, e.log[2])
  end)

  it("breaks waits for bits that are set, clear, change, or count", function()
    local e = explorer()
    assert.is_true(wait(e, 0, function(v) return v % 2 == 1 end) > 10)
    e:write(4, 4, 0xffffffff)
    wait(e, 4, function(v) return v == 0 end)
    e:write(4, 4, 1)
    local before
    wait(e, 8, function(v)
      local changed = before == 0 and v ~= 0 and v ~= 0xffffffff
      before = v
      return changed or v > 1 and v < 256
    end)
  end)

  it("begins with what has worked before", function()
    local e = explorer()
    e:write(0, 4, 0xff)
    local first = wait(e, 0, function(v) return v == 0 end)
    e:write(0, 4, 0xff)
    assert.is_true(wait(e, 0, function(v) return v == 0 end) < first)
  end)

  it("drafts a table that the kit takes", function()
    local e = explorer()
    e:write(0, 4, 0x81)
    e:write(0, 4, 0x80)
    wait(e, 4, function(v) return v ~= 0 end)
    e:write(8, 1, 5)
    e:read(9, 1)
    local text = tostring(e)
    helper.contains('R00 = { at = 0x00, width = 4, access = "wo", todo = "?" }, '
      .. "-- 0 reads, 2 writes, wrote 0x81 0x80", text)
    helper.contains("waited 1 time and went on at ones", text)
    local kind = assert((loadstring or load)(text))()
    assert.equal("class", device.is(kind))
    assert.equal(4, #device.layout(kind).registers)
    assert.equal(0x20, device.layout(kind).regions[1].size)
  end)

  it("refuses what it does not know", function()
    raises("device.explore: unknown option 'sise'; did you mean 'size'?",
      function() device.explore { sise = 1 } end)
    raises("device.explore: size: a number of bytes expected", function() device.explore {} end)
    raises("an explorer has no field 'drafft'", function() return explorer().drafft end)
  end)
end)

helper.kvm("an explorer in a VM", function()
  it("lets a driver go on that waits for it", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      mov dword [rbx], 1
      again:
      test dword [rbx + 4], 0x80
      jz again
      hlt]] }
    local e = device.explore { at = 0xd0000000, size = 0x1000 }
    guest.vm:mmio(e.at, e.size, e)
    guest:stops "hlt"
    helper.contains("R04", e:draft())
    assert.is_true(luna.live().vm >= 1)
  end)
end)
