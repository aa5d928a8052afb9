-- SPDX-License-Identifier: MIT
-- A PC that runs OVMF: ovmf_vm IMAGE ACCEL. What it says on its serial port is what this program
-- says. Ends when the shell's prompt is there.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local MIB = 2 ^ 20

-- CMOS memory as OVMF reads it: 112 MiB above the first 16. The fixed hardware is where it puts it.
local pc, said = nil, ""

local function serial(text)
  io.stdout:write(text)
  said = (said .. text):sub(-20)
  if said:find("Shell> ", 1, true) then pc.vm:stop "shell" end
end

pc = pcs.new { accel = arg[2], memory = "128M", pm = 0xb000, serial = serial,
  cmos = { [0x34] = 0x00, [0x35] = 0x07 } }
pcs.firmware(pc, { image = arg[1], size = 128 * MIB })

local exit, message = pc.cpu:run()
pcs.finish(exit, message, "shell")
