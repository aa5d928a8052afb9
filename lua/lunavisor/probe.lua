-- SPDX-License-Identifier: MIT
-- What this host's KVM can do.

local raw = require "lunavisor.binding.backend"

local class = require "lunavisor.class"

local Probe = class.define(class.class "probe", {}, "available message code features")

function Probe.__tostring(probe)
  local lines = {}
  lines[1] = probe.available and "KVM is usable" or ("KVM is not usable: " .. probe.message)
  local names = {}
  for name in pairs(probe.features) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = probe.features[name]
    lines[#lines + 1] = ("  %-26s %s"):format(name, value == 0 and "no" or ("%d"):format(value))
  end
  return table.concat(lines, "\n")
end

--- A table: available (can a VM be made?), where not: message (what is in the way and the command
--- that mends it) and code ("no_kvm": the device is missing, "access": no permission, "busy":
--- another hypervisor has it); features: KVM's answers by capability name, 0 for no. tostring gives
--- it as text.
return function()
  local ok, message, code = raw.probe()
  local probe = { available = ok or false, message = message, code = code, features = {} }
  local index = 0
  while raw.probe_name(index) do
    probe.features[raw.probe_name(index)] = raw.probe_value(index)
    index = index + 1
  end
  return setmetatable(probe, Probe)
end
