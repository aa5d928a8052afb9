-- SPDX-License-Identifier: MIT
-- How much an author writes: devices that ship, and a first device of one's own with its spec.

local helper = require "spec.support.helper"

local function lines_of(text)
  local count = 0
  for _ in text:gmatch "[^\n]*%S[^\n]*" do count = count + 1 end
  return count
end

describe("lines", function()
  it("of the UART are at most 120, of the 8259A 130", function()
    for name, most in pairs { uart16550 = 120, i8259 = 130 } do
      local text = helper.sh(("cat lua/lunavisor/device/models/%s.lua"):format(name))
      local count = select(2, text:gsub("\n", ""))
      assert.is_true(count <= most, ("%s: %d"):format(name, count))
    end
  end)

  -- A dice with an interrupt, and its spec: both are run.
  local DEVICE = [[
local device = require "lunavisor.device"

return device "dice" {
  width = 1,
  registers = {
    THROW  = { at = 0, access = "wo", write = function(dev)
      dev.SEED, dev.STATUS.thrown = (dev.SEED * 75 + 74) % 257 % 256, 1
    end },
    FACE   = { at = 1, access = "ro", read = function(dev) return dev.SEED % 6 + 1 end },
    STATUS = { at = 2, access = "w1c", fields = { thrown = 0 } },
    SEED   = { at = 3, reset = 1 },
  },
  lines = { irq = { status = "STATUS" } },
}
]]
  local SPEC = [[
local t = require "lunavisor.testing"
describe("a dice", function()
  t.registers(require "dice")
  it("shows a face and interrupts", function()
    local bus = t.bus(require "dice")
    bus:write8("THROW", 0)
    assert.raises(bus, "irq")
  end)
end)
]]

  it("of a first device are under 15, and of its spec under 10", function()
    assert.is_true(lines_of(DEVICE) < 15)
    assert.is_true(lines_of(SPEC) < 10)
    local folder = helper.sh("mktemp -d"):gsub("%s+$", "")
    for name, text in pairs { ["dice.lua"] = DEVICE, ["dice_spec.lua"] = SPEC } do
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write(text)
      file:close()
    end
    local output = helper.sh(("LUA_PATH='%s/?.lua;%s' busted --lua='%s' %s/dice_spec.lua; rm -r %s")
      :format(folder, package.path, helper.engine, folder, folder))
    local passed = tonumber(output:match "(%d+) success")
    helper.contains(" 0 failures / 0 errors", output)
    assert.is_true(passed >= 30, output)
  end)
end)
