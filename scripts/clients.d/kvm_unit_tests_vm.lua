-- SPDX-License-Identifier: MIT
-- Runs one test of kvm-unit-tests on a machine as it expects QEMU's to be: kvm_unit_tests_vm.lua
-- FILE ACCEL CPUS MEMORY CPU pit|nopit [ARGUMENTS]. Prints what the test sends to its serial port;
-- the status is what it writes to port 0xf4, as QEMU has it (2 * value + 1).

local luna = require "lunavisor"
local models = "lunavisor.device.models."
local acpi_pm = require(models .. "acpi_pm")
local debug_exit = require(models .. "debug_exit")
local fw_cfg = require(models .. "fw_cfg")
local pci_host = require(models .. "pci_host")
local uart16550 = require(models .. "uart16550")
local word = require "lunavisor.device.word"

package.path = arg[0]:match "^(.*)/" .. "/?.lua;" .. package.path
local test_device = require "test_device"

-- Bits of CPUID that a test wants to be clear: leaf, register, bit.
local FEATURES = {
  x2apic = { 1, "ecx", 21 }, pcid = { 1, "ecx", 17 }, xsave = { 1, "ecx", 26 },
  ["tsc-deadline"] = { 1, "ecx", 24 }, invpcid = { 7, "ebx", 10 }, umip = { 7, "ecx", 2 },
  pku = { 7, "ecx", 3 }, rdtscp = { 0x80000001, "edx", 27 },
}

io.stdout:setvbuf "line" -- to be seen where it is killed for its time
local path, accel, cpus, memory, model, pit = arg[1], arg[2], tonumber(arg[3]), arg[4], arg[5],
  arg[6]
local line = path:match "[^/]*$"
for i = 7, #arg do line = line .. " " .. arg[i] end

local function quit(status, ...)
  io.stdout:write(...)
  io.stdout:flush()
  os.exit(status)
end

local function change_cpuid(answer)
  for name in model:gmatch ",%-([%w-]+)" do
    local feature = FEATURES[name]
    if feature and feature[1] == answer.leaf and (answer.subleaf or 0) == 0 then
      answer[feature[2]] = word.insert(answer[feature[2]], feature[3], 1, 0)
    end
  end
  local vendor = model:match "vendor=(%w+)"
  if vendor and (answer.leaf == 0 or answer.leaf == 0x80000000) then
    for i, name in ipairs { "ebx", "edx", "ecx" } do
      local a, b, c, d = vendor:byte(4 * i - 3, 4 * i)
      answer[name] = a + 2 ^ 8 * b + 2 ^ 16 * c + 2 ^ 24 * d
    end
  end
end

-- ---- The machine ----

local size = tonumber(memory:match "%d+") * (memory:find "[gG]" and 2 ^ 30 or 2 ^ 20)
local vm = assert(luna.vm { accel = accel, irqchip = "kernel", pit = pit == "pit",
  unknown = "ones", unknown_msrs = "fault" })
local ram = assert(luna.buffer(size))
assert(vm:map_space(0, ram, 0, size, "rwx"))

vm:attach(uart16550 { output = function(text) io.stdout:write(text) end }, { pio = 0x3f8, irq = 4 })
vm:attach(debug_exit { exit = function(_, status) vm:stop(status) end }, { pio = 0xf4 })
vm:attach(fw_cfg { items = { [5] = string.char(cpus, 0) } },
  { pio = { main = 0x510 } })
vm:attach(pci_host(), { pio = { main = 0xcf8, data = 0xcfc } })
vm:attach(acpi_pm(), { pio = { main = 0xb000 } })
vm:attach(test_device { line = function(number, level) vm:irq(number, level) end },
  { pio = { port = 0xe0, flush = 0xe4, lines = 0x2000 } })
local slow = assert(luna.buffer("64K")) -- RAM behind a device
assert(vm:mmio(0xff000000, slow.size, { memory = slow }))

local first
for i = 1, cpus do
  local cpu = assert(vm:vcpu { mode = i == 1 and "protected" or nil, wait = i > 1 or nil,
    cpuid = change_cpuid })
  first = first or cpu
end
assert(luna.load(vm, path, { cpu = first, command = line, format = "multiboot" }))

local exit, message = (cpus == 1 and first or vm):run()
io.stdout:flush()
if exit and exit.kind == "stopped" then quit(exit.value) end
quit(125, "the VM ended: ", tostring(exit or message), "\n")
