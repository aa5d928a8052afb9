-- SPDX-License-Identifier: MIT
-- A PC that runs Linux from its kernel image: linux_vm KERNEL INITRD ACCEL VCPUS COMMAND. What it
-- says on its serial port is what this program says. Ends when the guest has turned the power off.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

local kernel, initrd, accel, cpus, command = arg[1], arg[2], arg[3], tonumber(arg[4]), arg[5]

pcs.finish(pcs.new { accel = accel, memory = "256M", cpus = cpus, image = kernel,
  load = { command = command, initrd = initrd } }, "off")
