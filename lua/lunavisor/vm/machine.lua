-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: the machine as a text.

local class = require "lunavisor.class"

local open = class.opener(class.class "vm")

local function indented(text)
  return "  " .. text:gsub("\n", "\n  ")
end

-- The functions of a PCI host bridge, by slot.
local function functions_text(dev)
  local lines = {}
  local functions = rawget(dev, "functions")
  for key = 0, 255 do
    local one = type(functions) == "table" and functions[key]
    if one then
      lines[#lines + 1] = ("    slot %d, function %d: %s"):format(math.floor(key / 8), key % 8,
        one.name)
    end
  end
  return lines
end

local function node_text(node)
  local lines = { ("  %s (%s)"):format(node.name, rawget(node.device, "class").layout.name) }
  for _, claimed in ipairs(node.at) do lines[#lines + 1] = "    " .. claimed.text end
  for _, line in ipairs(node.lines) do
    for _, target in ipairs(line.line.targets) do
      lines[#lines + 1] = ("    %s -> %s"):format(line.name,
        type(target) == "table" and rawget(target, "name") or "a function")
    end
  end
  for _, line in ipairs(functions_text(node.device)) do lines[#lines + 1] = line end
  return table.concat(lines, "\n")
end

return function(methods)
  --- The machine as a text: what runs it, vCPUs, what is mapped where, and the devices of the kit
  --- with their addresses, and where their lines lead.
  function methods.machine_text(self)
    open(self)
    local lines = { ("%s on %s: %s"):format(self.machine and self.machine.kind or "vm", self.accel,
      self.accel_reason), ("vCPUs: %d"):format(#self.vcpus) }
    for id, space in pairs(self.spaces) do
      lines[#lines + 1] = id == 0 and "memory" or "memory of space " .. id
      lines[#lines + 1] = indented(tostring(space):gsub("^[^\n]*\n?", ""))
    end
    lines[#lines + 1] = "devices"
    for _, node in ipairs(self:devices()) do lines[#lines + 1] = node_text(node) end
    return table.concat(lines, "\n")
  end
end
