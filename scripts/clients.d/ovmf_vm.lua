-- SPDX-License-Identifier: MIT
-- A PC that runs OVMF: ovmf_vm IMAGE ACCEL. What it says on its serial port is what this program
-- says. Ends when the shell's prompt is there.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local vm, said = nil, ""

local function serial(text)
  io.stdout:write(text)
  said = (said .. text):sub(-20)
  if said:find("Shell> ", 1, true) then vm:stop "shell" end
end

-- The fixed hardware is where it puts it.
vm = pcs.new { accel = arg[2], memory = "128M", bios = arg[1], pm = 0xb000, serial = serial }
pcs.finish(vm, "shell")
