-- SPDX-License-Identifier: MIT
-- Debian's SeaBIOS as a judge of the shipped devices: it finds them and uses them. On the software
-- CPU, in a process of its own.

local helper = require "spec.support.helper"
local seabios = require "spec.support.seabios"

local script = [[
  local seabios = require "spec.support.seabios"
  local pc = seabios.new()
  %s
]]

local function run(text)
  local file = io.open(seabios.FIRMWARE, "rb")
  if not file then pending(seabios.FIRMWARE .. " is of the package seabios, not installed") end
  file:close()
  local output = helper.child(script:format(text), { env = { LUNA_ACCEL = "soft" } })
  if output:find "without Zydis" then pending "this build has no software CPU" end
  return output
end

describe("SeaBIOS", function()
  it("finds the devices of a PC put together by hand, and takes their interrupts", function()
    local output = run [[
      local done, exit = seabios.run(pc, function()
        return pc.console:text():find "No bootable device"
      end, 30)
      print(pc.console:text())
      if not done then print(exit) end
      local ticks = pc.ram:u32(0x46c)
      local before = pc.clock.now
      seabios.run(pc, function() return pc.clock.now > before + 2 end, 30)
      print("ticks in two seconds:", pc.ram:u32(0x46c) - ticks)
    ]]
    local at = 1
    for _, line in ipairs { "SeaBIOS (version 1.", "Running on QEMU (i440fx)", "Found QEMU fw_cfg",
      "QEMU fw_cfg DMA interface supported", "RamSize: 0x01000000 [cmos]", "Found 1 PCI devices",
      "Found 1 serial ports", "No bootable device." } do
      local _, last = output:find(line, at, true)
      assert.truthy(last, ("%q is not in:\n%s"):format(line, output))
      at = last
    end
    local ticks = tonumber(output:match "ticks in two seconds:%s*(%d+)")
    assert.is_true(ticks >= 35 and ticks <= 38, output)
  end)
end)
