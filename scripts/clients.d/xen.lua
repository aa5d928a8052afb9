-- SPDX-License-Identifier: MIT
-- The client xen: the hypervisor of Debian's xen-hypervisor-4.17-amd64 with Debian's kernel as its
-- first domain, in ring 3, and busybox in that. The cloud kernel is not made to be one. The machine
-- is made in xen_vm.lua; scripts/setup does not get these packages, which are large.

local initramfs = require "initramfs"
local process = require "process"

local M = { about = "Xen with a Linux domain, to its shell (LUNA_CLIENTS)" }

local XEN, KERNEL = "boot/xen-*-amd64.gz", "boot/vmlinuz-*[0-9]-amd64"
local COMMAND = "console=com1 com1=115200,8n1 dom0_mem=192M"
local LINUX = "console=hvc0 panic=-1"
local CHECKS = { "%(XEN%) Xen version 4", "Hypervisor detected: Xen PV", "init of Linux 6",
  "0bee89b07a248e27c83fc3d5951213c1", "\ndone\n", "%(XEN%) Entering ACPI S5 state" }

function M.missing()
  for _, one in ipairs { { XEN, "xen-hypervisor-4.17-amd64" }, { KERNEL, "linux-image-amd64" },
    { initramfs.BUSYBOX, "busybox-static" } } do
    if not process.find(one[1]) then
      return ("there is no /%s, of the package %s, in LUNA_CLIENTS: unpack it there (dpkg -x)")
        :format(one[1], one[2])
    end
  end
end

function M.tests()
  return { { name = "domain", cpus = 1 }, { name = "domain-2", cpus = 2, long = true } }
end

-- The hypervisor as an ELF file, and the file system.
local function make_images()
  local xen = os.tmpname()
  assert(os.execute(("gunzip -c %s >%s"):format(process.quote(process.find(XEN)), xen)))
  return xen, initramfs.make "echo abc | md5sum"
end

local function run(form, options)
  local xen, initrd = make_images()
  local parts = { xen = xen, initrd = initrd, kernel = process.quote(process.find(KERNEL)) }
  local text, status, seconds, used = process.run(form:gsub("{(%w+)}", parts), options.seconds)
  os.remove(xen)
  os.remove(initrd)
  local result = process.judge(CHECKS, text, status, seconds)
  result.used = used
  return result
end

-- Without a BIOS's services. Both take their first word for their own name.
function M.ours(test, options)
  return run(("%s %s {xen} {kernel} {initrd} %s %d %s %s"):format(arg[-1] or "luajit",
    process.quote(options.directory .. "/xen_vm.lua"), options.accel, test.cpus,
    process.quote("xen no-real-mode " .. COMMAND), process.quote("linux " .. LINUX)), options)
end

function M.other(test, options)
  if not process.has_qemu() then return nil end
  return run(("qemu-system-x86_64 -accel tcg -m 512 -nodefaults -display none -serial stdio "
    .. "-no-reboot -smp %d -kernel {xen} -append %s -initrd {kernel}\" %s,\"{initrd}"):format(
    test.cpus, process.quote(COMMAND), LINUX), options)
end

return M
