-- SPDX-License-Identifier: MIT
-- What this host can run VMs on, KVM and the software CPU, and what each can do.

local raw = require "lunavisor.binding.backend"
local sorted = require "lunavisor.text.sorted"
local accels = require "lunavisor.vm.accel"
local class = require "lunavisor.class"

local Probe = class.define(class.class "probe", {},
  "available message code features accel reason accelerators")
local Accelerator = class.define(class.class "accelerator", {},
  "available message code features limits")

local titles = { kvm = "KVM", soft = "the software CPU" }
local limits = { "vcpus_max", "slots_max", "spaces_max", "address_bits", "dirty_ring_max",
  "xsave_size", "controls", "exceptions", "shadow_vmcs" }

local function usable(name, accelerator)
  return accelerator.available and titles[name] .. " is usable"
    or ("%s is not usable: %s"):format(titles[name], accelerator.message)
end

-- What each accelerator says of a feature or limit, the one that VMs get first.
local function row(name, columns, field)
  local values = {}
  for i, accelerator in ipairs(columns) do
    local value = accelerator[field][name]
    values[i] = value == nil and "?" or value == 0 and "no" or ("%d"):format(value)
  end
  return (("  %-26s %-12s %s"):format(name, values[1], values[2] or ""):gsub(" +$", ""))
end

function Probe.__tostring(probe)
  local first = probe.accel or "kvm"
  local other = first == "kvm" and "soft" or "kvm"
  local lines, columns, heads = {}, {}, {}
  for _, name in ipairs { first, other } do
    local accelerator = probe.accelerators[name]
    lines[#lines + 1] = usable(name, accelerator)
    if accelerator.available then
      columns[#columns + 1], heads[#heads + 1] = accelerator, name
    end
  end
  lines[#lines + 1] = probe.accel and ("a VM gets %s: %s"):format(probe.accel, probe.reason)
    or "a VM gets neither: " .. probe.message
  if #columns == 0 then return table.concat(lines, "\n") end
  lines[#lines + 1] = (("  %-26s %-12s %s"):format("", heads[1], heads[2] or ""):gsub(" +$", ""))
  for _, field in ipairs { "features", "limits" } do
    for _, name in ipairs(sorted(columns[1][field])) do
      lines[#lines + 1] = row(name, columns, field)
    end
  end
  return table.concat(lines, "\n")
end

local function probe_one(number)
  local ok, message, code = raw.probe(number)
  local found = { available = ok or false, message = message, code = code, features = {},
    limits = {} }
  if ok then
    local index = 0
    while raw.probe_name(index) do
      found.features[raw.probe_name(index)] = raw.probe_value(number, index)
      index = index + 1
    end
    for _, name in ipairs(limits) do found.limits[name] = raw.capability(number, name) end
  end
  return setmetatable(found, Accelerator)
end

--- A table: accel, the name of what runs a VM that asks for nothing ("kvm" or "soft"), and reason,
--- why that one; available (can such a VM be made?), where not: message (what is in the way and the
--- command that mends it) and code ("no_kvm": the device is missing, "access": no permission,
--- "busy": another hypervisor has it); features: its answers by capability name, 0 for no; and
--- accelerators.kvm and .soft, each with available, message, code, features and limits (as
--- luna.capability). tostring gives it as text.
return function()
  local found = {}
  for _, name in ipairs(accels.kinds) do found[name] = probe_one(accels.numbers[name]) end
  local accel, reason, code = accels.choose(accels.numbers.auto)
  local probe = { accelerators = found, features = {}, available = false }
  if accel then
    local chosen = found[accel]
    probe.accel, probe.reason = accel, reason
    probe.available, probe.features = chosen.available, chosen.features
    probe.message, probe.code = chosen.message, chosen.code
  else
    probe.message, probe.code = reason, code
  end
  return setmetatable(probe, Probe)
end
