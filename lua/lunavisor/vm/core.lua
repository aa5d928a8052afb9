-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: all of it as a core file.

local check = require "lunavisor.check"
local class = require "lunavisor.class"

local open = class.opener(class.class "vm")

local known = { space = true, linear = true }

return function(methods, space_of)
  --- Writes an ELF core file that gdb opens (gdb kernel.elf x.core): vCPUs as threads, with their
  --- general, segment and floating-point registers, and the memory of options.space (vm.default
  --- where nil) as segments. They are at the linear addresses that the first vCPU's page tables
  --- give them, where it is in that space, and at the guest-physical ones; options.linear = false:
  --- only the latter. The file is one of x86-64 where the first vCPU's code has 64 bits or where
  --- addresses need it, else of i386. Zeros are holes. It is there whole or not at all: true, or
  --- nil, message, code. An error while a vCPU is started.
  function methods.core(self, path, options)
    open(self)
    check.name("vm:core: path", path, "a path")
    options = check.options("vm:core", options, known)
    local linear = options.linear == nil or check.flag("vm:core: linear", options.linear)
    local space = space_of(self, options.space or self.default, "vm:core")
    local first = self.vcpus[1]
    if not first then error("vm:core: this VM has no vCPU, and a core has a thread", 2) end
    for _, cpu in ipairs(self.vcpus) do
      if cpu.started then
        error(("vm:core: vCPU %d is started; cpu:join ends that"):format(cpu.id), 2)
      end
    end
    return require("lunavisor.dump.core").write(first, space, path, linear)
  end
end
