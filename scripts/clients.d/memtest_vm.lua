-- SPDX-License-Identifier: MIT
-- A PC that runs memtest86+ from its image: memtest_vm IMAGE ACCEL MODE PATTERN SECONDS. Prints the
-- screen when it has the pattern, or after so many seconds.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local LOOK = 0.5 -- seconds from one look at the screen to the next

local vm = pcs.new { accel = arg[2], memory = "8M", serial = false, devices = { vga = {} },
  image = arg[1], load = { framebuffer = "text", mode = arg[3] } }

local function screen() return table.concat(vm.devices.vga:text(), "\n") .. "\n" end

local function seen() return screen():find(arg[4]) ~= nil end

vm:timer(LOOK, function()
  if seen() then vm:stop "seen" end
end, { period = LOOK })
vm:timer(tonumber(arg[5]), function() vm:stop "late" end)
local exit = assert(vm.vcpus[1]:run())
print(screen())
if exit.value ~= "seen" then print(exit) end
os.exit(exit.value == "seen" and 0 or 1, true)
