-- SPDX-License-Identifier: MIT
-- What luna repl, luna gdb and --gdb do with a script's VM before its guest runs for the first
-- time: a kind of vm/meter.lua, so that the time that this takes is no part of a run's.

local M = {}

local First = {}
First.__index = First

--- Calls fn(vm, cpu) before the first run of all VMs that are made from here on, or before the
--- first vCPU is started; cpu is nil where that is of all vCPUs. Once; first.came says whether it
--- was.
function M.new(fn)
  local self = setmetatable({ came = false, vms = {} }, First)
  require("lunavisor.vm.meter").add { begin = function(vm)
    local part = {}
    function part.enter(_, cpu)
      if self.came or #vm.vcpus == 0 then return end
      self.came = true
      fn(vm, cpu)
    end
    part.start = part.enter
    function part.close()
      for i, one in ipairs(self.vms) do
        if one == vm then return table.remove(self.vms, i) end
      end
    end
    self.vms[#self.vms + 1] = vm
    return part
  end }
  return self
end

--- The script has ended without a run: the last VM that it made and that is open.
function First.last(self)
  self.came = true
  for i = #self.vms, 1, -1 do
    if self.vms[i][1] then return self.vms[i] end
  end
end

return M
