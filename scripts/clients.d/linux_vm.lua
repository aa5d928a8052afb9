-- SPDX-License-Identifier: MIT
-- A PC that runs Linux from its kernel image: linux_vm KERNEL INITRD ACCEL VCPUS COMMAND
-- DRIVE, which is the image of its disk, whose file is not written to, and of its CD; empty: none.
-- What it says on its serial port is what this program says. Ends when the power is off.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local kernel, initrd, accel, cpus, command = arg[1], arg[2], arg[3], tonumber(arg[4]), arg[5]
local drive = arg[6] ~= "" and arg[6] or nil

pcs.finish(pcs.new { accel = accel, memory = "256M", cpus = cpus, image = kernel,
  disk = drive and { image = drive, copy = true }, cdrom = drive,
  load = { command = command, initrd = initrd } }, "off")
