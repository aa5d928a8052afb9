-- SPDX-License-Identifier: MIT
-- What programs do with a script's VM before its guest runs for the first time: luna repl and luna
-- gdb, which look at it there.

local M = {
  first = false, -- fn(vm, cpu or nil): called once, before the first run
  vms = false,   -- a list of the VMs that are made
}

--- Asks for fn(vm, cpu) before the first run, and for the list of VMs.
function M.begin(fn)
  M.first, M.vms = fn, {}
end

--- A run is going to begin.
function M.come(vm, cpu)
  local fn = M.first
  M.first = false
  fn(vm, cpu)
end

--- The script has ended without a run: the last VM that it made and that is open.
function M.last()
  M.first = false
  for i = #(M.vms or {}), 1, -1 do
    if M.vms[i][1] then return M.vms[i] end
  end
end

return M
