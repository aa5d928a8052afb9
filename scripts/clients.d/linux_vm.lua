-- SPDX-License-Identifier: MIT
-- A PC that runs Linux from its kernel image: linux_vm KERNEL INITRD ACCEL VCPUS COMMAND. What it
-- says on its serial port is what this program says. Ends when the guest has turned the power off.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local acpi = require "acpi"
local luna = require "lunavisor"
local pcs = require "pc"

local kernel, initrd, accel, cpus, command = arg[1], arg[2], arg[3], tonumber(arg[4]), arg[5]
local TABLES = 0xe0000

local pc = pcs.new { accel = accel, memory = "256M" }
local vm = pc.vm
pc.ram:write(TABLES, acpi.tables(cpus, pcs.PM, TABLES))
local image = assert(luna.load(vm, kernel, { command = command, rsdp = TABLES, initrd = initrd }))
local cpu = assert(vm:vcpu(image.entry))
for _ = 2, cpus do assert(vm:vcpu { mode = "reset", wait = true }) end

local exit, message
if cpus == 1 then
  exit, message = cpu:run()
else
  vm:start()
  exit, message = vm:run()
end
pcs.finish(exit, message, "off")
