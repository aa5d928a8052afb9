-- SPDX-License-Identifier: MIT
-- The lines of a device's table: which follow registers by a rule, which a function, and which are
-- set by hand.

local class = require "lunavisor.class"
local bits = require "lunavisor.device.bits"
local layouts = require "lunavisor.device.layout"
local registers = require "lunavisor.device.register"
local u64 = require "lunavisor.text.u64"

local M = {}

local LINE = { status = true, enable = true, gate = true, mask = true, doc = true }

local function reference(layout, path, what, text)
  return layouts.reference(layout, layout.blame, path, what, text)
end

-- { status = "ISR", enable = "IER", gate = "CTRL.on" }: the line is up while status & enable, under
-- the mask, is not 0 and the gate is not 0 either.
local function rule_of(layout, path, name, spec)
  local blame = layout.blame
  registers.check_keys(blame, path, spec, LINE, "a line")
  local rule = { name = name, parts = {}, gates = {}, sees = {}, mask = nil }
  local status, field = reference(layout, path, "status", spec.status)
  rule.parts[1], rule.sees[status] = { register = status }, true
  rule.mask = field and field.mask
  if spec.mask ~= nil then
    rule.mask = bits.fits(spec.mask, 8 * status.width)
    if rule.mask == nil then blame(path, "mask: a value of the status register expected") end
  end
  if spec.enable ~= nil then
    local enable, gate = reference(layout, path, "enable", spec.enable)
    rule.sees[enable] = true
    if gate then
      rule.gates[1] = { register = enable, field = gate }
    elseif enable.width ~= status.width then
      blame(path, ("enable: %s is %d bytes wide and %s %d"):format(spec.enable, enable.width,
        spec.status, status.width))
    else
      rule.parts[2] = { register = enable }
    end
  end
  if spec.gate ~= nil then
    local gate, gate_field = reference(layout, path, "gate", spec.gate)
    rule.gates[#rule.gates + 1], rule.sees[gate] = { register = gate, field = gate_field }, true
  end
  return rule
end

--- Fills layout.lines (by name, in order), layout.rules and layout.computed (a list of
--- { slot, fn }, nil where empty).
function M.add(layout, specs)
  local names = {}
  layout.lines, layout.rules, layout.computed = {}, {}, nil
  if specs ~= nil and type(specs) ~= "table" then
    layout.blame("lines", "a table of lines by name expected")
  end
  for name in pairs(specs or {}) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local spec, path = specs[name], "lines." .. tostring(name)
    if type(name) ~= "string" then
      layout.blame(path, ("a line cannot be called %s"):format(tostring(name)))
    end
    layout.slots = layout.slots + 1
    local about = { name = name, slot = layout.slots, ruled = true,
      doc = type(spec) == "table" and spec.doc or nil }
    if type(spec) == "function" then
      layout.computed = layout.computed or {}
      table.insert(layout.computed, { slot = about.slot, fn = spec })
    elseif type(spec) == "table" and spec.status ~= nil then
      local rule = rule_of(layout, path, name, spec)
      rule.slot = about.slot
      layout.rules[#layout.rules + 1], about.rule = rule, spec
    elseif spec == true or type(spec) == "table" and spec.enable == nil then
      if spec ~= true then registers.check_keys(layout.blame, path, spec, LINE, "a line") end
      about.ruled = false
    else
      layout.blame(path, ("{ status = register, enable = register }, a function, or true expected, "
        .. "got %s"):format(class.describe(spec)))
    end
    layout.lines[#layout.lines + 1], layout.lines[name] = about, about
  end
end

--- Brings lines up to date that follow functions.
function M.updater(layout, set)
  local computed = layout.computed
  if not computed then return nil end
  return function(d)
    for i = 1, #computed do
      local about = computed[i]
      local line, level = d[about.slot], about.fn(d) and true or false
      if level ~= line.level then set(line, level) end
    end
  end
end

--- What a rule looks at, for people.
function M.text(spec)
  local text = spec.status .. (spec.mask and " & " .. u64.hex(spec.mask) or "")
  return text .. (spec.enable and " & " .. spec.enable or "")
    .. (spec.gate and " while " .. spec.gate or "")
end

return M
