-- SPDX-License-Identifier: MIT
-- The accelerators, KVM and the software CPU: their names and numbers, and which one a VM is on.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"

local M = {
  numbers = {}, -- luna_accelerator by name
  kinds = {},   -- names without "auto", in the order of their numbers
}

local names, count = {}, 0
while raw.accelerator_name(count) do
  local name = raw.accelerator_name(count)
  names[count], M.numbers[name] = name, count
  if count > 0 then M.kinds[count] = name end
  count = count + 1
end

local preferred = M.numbers.auto

--- Says what VMs get whose script does not say it.
function M.prefer(name)
  preferred = M.numbers[name]
end

--- The number of an accelerator by its name, for nil that of "auto" or of what is preferred; others
--- raise at the caller `depth` calls above.
function M.number(what, name, depth)
  if name == nil then return preferred end
  local number = type(name) == "string" and M.numbers[name]
  if not number then
    error(("%s: 'auto', 'kvm' or 'soft' expected, got %s%s"):format(what,
      type(name) == "string" and "'" .. name .. "'" or class.describe(name),
      class.hint(name, M.numbers)), (depth or 1) + 2)
  end
  return number
end

--- The name of the one that the VM is on, and why.
function M.of(vm)
  local number, reason = raw.vm_accelerator(vm)
  return names[number], reason
end

--- The name of the one that a VM with this number gets, and why; nil, message, code for none.
function M.choose(number)
  local chosen, reason, code = raw.choose(number)
  if not chosen then return nil, reason, code end
  return names[chosen], reason
end

return M
