-- SPDX-License-Identifier: MIT
-- A PC that boots a disk image through SeaBIOS: seabios_vm BIOS DISK ACCEL [menu]. What the BIOS
-- says is what this program says; with "menu", someone presses ESC and 1. Ends when the guest
-- writes to port 0xf4.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local MIB = 2 ^ 20
local KEYS = { ["Press ESC"] = "\27", ["Select boot"] = "1" }

-- CMOS memory as SeaBIOS reads it: 15 MB above the first, and hard disks before all else.
local pc = pcs.new { accel = arg[3], memory = "16M",
  cmos = { [0x30] = 0x00, [0x31] = 0x3c, [0x3d] = 0x02 } }
local said = ""
local menu = arg[4] == "menu"

local function console(text)
  io.stdout:write(text)
  if not menu then return end
  said = (said .. text):sub(-20)
  for words, key in pairs(KEYS) do
    if said:find(words, 1, true) then
      said = ""
      pc.keyboard:type(key)
    end
  end
end

pcs.firmware(pc, { image = arg[1], size = 16 * MIB, disk = arg[2], console = console,
  items = menu and { [0xe] = "\1\0" } or nil })
local exit, message = pc.cpu:run()
pcs.finish(exit, message, 0x42)
