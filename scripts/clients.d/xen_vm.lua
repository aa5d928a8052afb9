-- SPDX-License-Identifier: MIT
-- A PC that runs Xen from its multiboot image: xen_vm XEN KERNEL INITRD ACCEL VCPUS COMMAND
-- KERNEL-COMMAND. Ends when the power is off.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local pcs = require "pc"

pcs.finish(pcs.new { accel = arg[4], memory = "512M", cpus = tonumber(arg[5]), image = arg[1],
  load = { command = arg[6], modules = { { file = arg[2], command = arg[7] }, arg[3] } } }, "off")
