-- SPDX-License-Identifier: MIT
-- fw_cfg against QEMU's description of it.

local device = require "lunavisor.device"
local fw_cfg = require "lunavisor.device.models.fw_cfg"
local random = require "spec.support.device"

local fw, memory

local function fresh(options)
  memory = device.memory(0x2000)
  options = options or {}
  options.dma, options.log = memory, false
  fw = fw_cfg(options)
end

local function read(key, count)
  fw:write(0, 2, key)
  local list = {}
  for i = 1, count do list[i] = string.char(fw:read(1, 1)) end
  return table.concat(list)
end

-- A DMA: its descriptor is at 0x100. Returns control afterwards.
local function dma(control, length, gpa)
  fw.dma:u32_be(0x100, control)
  fw.dma:u32_be(0x104, length)
  fw.dma:u64_be(0x108, gpa)
  fw.regions.dma.write(nil, 4, 4, 0x00010000)
  return fw.dma:u32_be(0x100)
end

before_each(function()
  fresh { files = { ["etc/b"] = "bb", ["etc/a"] = "contents" }, items = { [5] = "\4\0" } }
end)

describe("fw_cfg", function()
  it("has a signature, a revision, items and zeros behind them", function()
    assert.equal("QEMU", read(0, 4))
    assert.equal("\3\0\0\0\0\0", read(1, 6))
    assert.equal("\4\0\0", read(5, 3))
    assert.equal("\0\0", read(0x1234, 2))
    assert.equal("QEMU", read(0x4000, 4))
    assert.equal("\0\0\0\0", read(0x8000, 4)) -- an item of the architecture
  end)

  it("has a directory of its files", function()
    local list = read(0x19, 4 + 128)
    assert.equal("\0\0\0\2", list:sub(1, 4))
    assert.equal("\0\0\0\8\0\32\0\0etc/a\0", list:sub(5, 18))
    assert.equal("\0\0\0\2\0\33\0\0etc/b\0", list:sub(69, 82))
    assert.equal("contents\0", read(0x20, 9))
  end)

  it("takes new files and new contents", function()
    fw:file("etc/c", "ccc")
    fw:file("etc/a", "new")
    assert.equal("\0\0\0\3\0\0\0\3", read(0x19, 8))
    assert.equal("ccc", read(0x22, 3))
    assert.equal("new\0", read(0x20, 4))
    assert.equal("new", fw:file "etc/a")
    assert.is_nil(fw:file "etc/x")
    local ok, message = pcall(fw.file, fw, ("x"):rep(56), "")
    assert.is_false(ok)
    assert.truthy(message:find("a name of 1 to 55 characters", 1, true))
  end)
end)

describe("fw_cfg's DMA", function()
  it("says that it is there", function()
    assert.equal(0x554d4551, fw.regions.dma.read(nil, 0, 4))
    assert.equal(0x47464320, fw.regions.dma.read(nil, 4, 4))
  end)

  it("selects, skips and reads, with zeros at the end", function()
    assert.equal(0, dma(0x0020000a, 4, 0x200))
    assert.equal("cont", fw.dma:read(0x200, 4))
    assert.equal(0, dma(4, 2, 0))
    assert.equal(0, dma(2, 4, 0x300))
    assert.equal("ts\0\0", fw.dma:read(0x300, 4))
  end)

  it("writes what may be written, within its size", function()
    fw.dma:write(0x400, "CONT")
    assert.equal(1, dma(0x00200018, 4, 0x400))
    fw:file("etc/a", "contents", true)
    assert.equal(0, dma(0x00200018, 4, 0x400))
    assert.equal("CONTents", fw:file "etc/a")
    assert.equal(0, dma(0x10, 4, 0x400))
    assert.equal(1, dma(0x10, 1, 0x400))
    assert.equal("CONTCONT", fw:file "etc/a")
  end)

  it("fails where there is no memory", function()
    assert.equal(1, dma(0x0020000a, 4, 0x100000))
    fw.dma:u32_be(0x100, 2)
    fw.regions.dma.write(nil, 0, 4, 0x01000000)
    fw.regions.dma.write(nil, 4, 4, 0x00010000)
    assert.equal(2, fw.dma:u32_be(0x100))
  end)

  it("takes its address at once or in halves", function()
    fw.dma:u32_be(0x100, 0x0020000a)
    fw.dma:u32_be(0x104, 4)
    fw.dma:u64_be(0x108, 0x200)
    fw.regions.dma.write(nil, 0, 8, require("lunavisor").u64 "0x0001000000000000")
    assert.equal("cont", fw.dma:read(0x200, 4))
  end)
end)

random.describe("fw_cfg", function(log)
  return fw_cfg { log = log, dma = device.memory(0x1000), files = { a = "abc" } }
end)
