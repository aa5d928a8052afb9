-- SPDX-License-Identifier: MIT
-- vm.devices: the devices of a VM by name, and as a tree with their addresses and lines.

local class = require "lunavisor.class"
local dump = require "lunavisor.device.dump"
local sorted = require "lunavisor.text.sorted"

local open = class.opener(class.class "vm")
local KINDS = { mmio = "gpa", pio = "port" }

local function place_text(claimed)
  local trap = claimed.trap
  return ("%s 0x%x..0x%x"):format(KINDS[trap.kind], trap.first, trap.first + trap.length - 1)
end

local function line_text(line)
  local list = {}
  for i, target in ipairs(line.targets) do
    list[i] = type(target) == "table" and rawget(target, "name") or "a function"
  end
  return #list > 0 and " -> " .. table.concat(list, ", ") or ""
end

local function tree_text(tree)
  local out = {}
  for _, node in ipairs(tree) do
    out[#out + 1] = node.name
    for _, claimed in ipairs(node.at) do out[#out + 1] = "  " .. claimed.text end
    for _, line in ipairs(node.lines) do
      out[#out + 1] = ("  %s: %s%s"):format(line.name, line.level and "up" or "down",
        line_text(line.line))
    end
  end
  return table.concat(out, "\n")
end

local function node_of(name, entry)
  local node = { name = name, device = entry.dev, at = {}, lines = {} }
  for i, claimed in ipairs(entry.claims) do
    node.at[i] = { kind = claimed.trap.kind, first = claimed.trap.first,
      size = claimed.trap.length, region = claimed.place.key, trap = claimed.trap,
      text = place_text(claimed) }
  end
  for i, about in ipairs(dump.layout_of(entry.dev).lines) do
    local line = entry.dev[about.name]
    node.lines[i] = { name = about.name, level = line.level, edges = line.edges, line = line }
  end
  return node
end

-- vm.devices: by name; called as a method, the tree.
local Devices = {}

function Devices.__index(self, name)
  local entries = rawget(self, 1).attached.entries
  if entries[name] then return entries[name].dev end
  if class.is_probe(name) then return nil end
  error(("vm.devices: there is no device %s%s"):format(tostring(name), class.hint(name, entries)),
    2)
end

function Devices.__newindex()
  error("vm.devices: attach devices with vm:attach", 2)
end

function Devices.__call(_, vm)
  open(vm)
  local tree = {}
  local entries = vm.attached.entries
  for i, name in ipairs(sorted(entries)) do tree[i] = node_of(name, entries[name]) end
  return setmetatable(tree, { __tostring = tree_text })
end

local M = {}

--- The view of a VM: vm.devices.uart, vm:devices().
function M.new(vm) return setmetatable({ vm }, Devices) end

--- The names of the devices of a view; nil for anything else.
function M.names(view)
  return getmetatable(view) == Devices and sorted(rawget(view, 1).attached.entries) or nil
end

return M
