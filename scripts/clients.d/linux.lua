-- SPDX-License-Identifier: MIT
-- The client linux: Debian's cloud kernel with a busybox of its packages, which are unpacked and
-- not installed. The machine is made in linux_vm.lua, or by luna boot; what runs in it, an
-- initramfs, here. The kernel's drivers of disks are modules.

local initramfs = require "initramfs"
local process = require "process"

local M = { about = "Debian's cloud kernel with busybox, to its shell (LUNA_CLIENTS)" }

local KERNEL = "boot/vmlinuz-*-cloud-amd64"
local MODULE = "lib/modules/*-cloud-amd64/kernel/drivers/%s.ko"
local DRIVERS = { "scsi/scsi_common", "scsi/scsi_mod", "ata/libata", "ata/ata_piix", "scsi/sd_mod",
  "cdrom/cdrom", "scsi/sr_mod" }
local COMMAND = "console=ttyS0 panic=-1"

-- Commands of /init; each prints a line that the test looks for.
local tests = {
  { name = "shell", cpus = 1, script = "echo abc | md5sum",
    checks = { "0bee89b07a248e27c83fc3d5951213c1" } },
  { name = "shell-2", cpus = 2, script = "echo abc | md5sum; echo cpus $(nproc)",
    checks = { "0bee89b07a248e27c83fc3d5951213c1", "cpus 2\n" } },
  { name = "command", cpus = 1, command = "sh -c 'uname -s; exit 5'",
    script = '"$@"\necho $? >/dev/ttyS1', checks = { "\nLinux\n", "\nstatus 5\n" } },
  { name = "drives", cpus = 1, drives = true, script = [[
    head -c 1048576 /dev/zero | tr '\0' x >/file
    dd if=/file of=/dev/sda bs=1M seek=1 conv=fsync
    echo 3 >/proc/sys/vm/drop_caches
    echo first $(head -c 1048576 /dev/sda | md5sum)
    echo second $(tail -c 1048576 /dev/sda | md5sum)
    echo cd $(md5sum </dev/sr0)]],
    checks = { "ata1: PATA max MWDMA2 .- bmdma", "first 86d164183ec152a4fce54c9d05520036",
      "second b561f87202d04959e37588ee05cf5b10", "cd b127fb93ef4d53f37fa95ab3c7578d3c" } },
  { name = "work", cpus = 1, long = true, script = [[
    head -c 8388608 /dev/zero | gzip | gunzip | md5sum
    head -c 8388608 /dev/zero | sha256sum
    i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo counted $i]],
    checks = { "96995b58d4cbf6aaa9041b4f00c7f6ae",
      "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74", "counted 20000\n" } },
  { name = "work-2", cpus = 2, long = true, script = [[
    for i in 1 2; do head -c 8388608 /dev/zero | sha256sum & done; wait
    echo cpus $(grep -c ^processor /proc/cpuinfo)]],
    checks = { "2daeb1f36095b44b[^\n]*\n.*2daeb1f36095b44b", "cpus 2\n" } },
}

function M.missing()
  return process.missing { { KERNEL, "linux-image-cloud-amd64" },
    { initramfs.BUSYBOX, "busybox-static" },
    { MODULE:format(DRIVERS[1]), "linux-image-cloud-amd64" } }
end

function M.tests()
  return tests
end

-- 2 MiB for the disk and the CD: lines of numbers.
local function make_drive()
  local lines = {}
  for i = 0, 2 ^ 18 - 1 do lines[i + 1] = ("%07d\n"):format(i) end
  return process.make_file(table.concat(lines))
end

-- The drivers of disks, and the commands that load them.
local function drivers()
  local files, commands = {}, "mount -t devtmpfs none /dev\n"
  for i, name in ipairs(DRIVERS) do
    local file = name:match "[^/]+$" .. ".ko"
    files[i] = { file, process.read(process.find(MODULE:format(name))) }
    commands = commands .. "insmod /" .. file .. "\n"
  end
  return files, commands .. "until [ -b /dev/sda -a -b /dev/sr0 ]; do sleep 0.1; done\n"
end

local function make_initrd(test)
  if not test.drives then return initramfs.make(test.script) end
  local files, commands = drivers()
  return initramfs.make(commands .. test.script, files)
end

local function run(test, options, form, ...)
  local made, arguments = {}, { ... }
  for i, argument in ipairs(arguments) do
    if type(argument) == "function" then
      argument = argument(test)
      made[#made + 1] = argument
    end
    arguments[i] = process.quote(argument)
  end
  local text, status, seconds, used = process.run(form:format((table.unpack or unpack)(arguments)),
    options.seconds)
  for _, path in ipairs(made) do os.remove(path) end
  text = ("%s\nstatus %s\n"):format(text, status)
  local checks = { "init of Linux 6", "\ndone\n" }
  for _, check in ipairs(test.checks) do checks[#checks + 1] = check end
  local result = process.judge(checks, text, status, seconds)
  result.used = used
  return result
end

function M.ours(test, options)
  if test.command then
    return run(test, options, "env LUNA_LUA=%s %s/../luna boot -m 256M %s --initrd %s --accel %s "
      .. "--cmdline %s -- " .. test.command, arg[-1] or "luajit", options.directory,
      process.find(KERNEL), make_initrd, options.accel, COMMAND)
  end
  return run(test, options, (arg[-1] or "luajit") .. " %s %s %s %s %s %s %s",
    options.directory .. "/linux_vm.lua", process.find(KERNEL), make_initrd, options.accel,
    test.cpus, COMMAND, test.drives and make_drive or "")
end

function M.other(test, options)
  if test.command or test.drives or not process.has_qemu() then return nil end
  return run(test, options, "qemu-system-x86_64 -accel tcg -m 256 -nodefaults -display none "
    .. "-serial stdio -no-reboot -kernel %s -initrd %s -smp %s -append %s",
    process.find(KERNEL), make_initrd, test.cpus, COMMAND)
end

return M
