-- SPDX-License-Identifier: MIT
-- The calls of Apple's Hypervisor framework for x86, by the same names without the prefix hv_, for
-- those who know it: hv.vm_map_space(asid, buffer, gpa, size, hv.MEMORY_READ + hv.MEMORY_WRITE).
--
-- A call that succeeds returns what C puts behind its pointers, or true. One that fails changes
-- nothing and returns nil, message, code; code is Apple's name in lower case ("bad_argument"), and
-- hv.errors[code] its number. Arguments of a wrong type raise at the caller's line. Registers, MSRs
-- and fields of the VMCS are u64; addresses in guest-physical space, sizes, flags and numbers of
-- spaces and vCPUs are plain numbers, for which a u64 will do as well.
--
-- A buffer of luna.buffer stands for an address of the process; a view of it for one inside. A
-- thread is one of Lua's: a vCPU belongs to the coroutine that made it.

local hv = {}

for name, value in pairs(require "lunavisor.hv.constants") do hv[name] = value end

--- The numbers of the codes that failed calls return.
hv.errors = {}
for _, name in ipairs {
  "ERROR", "BUSY", "BAD_ARGUMENT", "NO_RESOURCES", "NO_DEVICE", "DENIED", "FAULT", "UNSUPPORTED",
} do
  hv.errors[name:lower()] = hv[name]
end

for _, part in ipairs { "vm", "memory", "vcpu", "msr", "vmcs", "interrupt" } do
  require("lunavisor.hv." .. part)(hv)
end

return hv
