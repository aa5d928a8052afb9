-- SPDX-License-Identifier: MIT
-- A PC that boots a disk image through SeaBIOS: seabios_vm BIOS DISK ACCEL [menu]. What the BIOS
-- says is what this program says; with "menu", someone presses ESC and 1. Ends when the guest
-- writes to port 0xf4.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local KEYS = { ["Press ESC"] = "\27", ["Select boot"] = "1" }
local MENU = 0xe -- the item of the configuration device

local vm
local said = ""
local menu = arg[4] == "menu"

local function debug(text)
  io.stdout:write(text)
  if not menu then return end
  said = (said .. text):sub(-20)
  for words, key in pairs(KEYS) do
    if said:find(words, 1, true) then
      said = ""
      vm.devices.keyboard:type(key)
    end
  end
end

vm = pcs.new { accel = arg[3], memory = "16M", bios = arg[1], disk = arg[2], debug = debug }
if menu then vm.devices.fw_cfg:item(MENU, "\1\0") end
pcs.finish(vm, 0x42)
