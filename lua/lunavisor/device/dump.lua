-- SPDX-License-Identifier: MIT
-- What a device is and has, for people and programs: the dump that print(dev) gives, and the
-- description of its registers, neither of which has an effect on the device.

local bits = require "lunavisor.device.bits"
local handles = require "lunavisor.device.handle"
local instances = require "lunavisor.device.instance"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"

local M = {}

local methods, copy = instances.methods, instances.copy

-- ---- The dump ----

local function value_text(d, register, slot)
  local value = d[slot]
  local text = handles.text(register, value)
  local digits = text:match "^0x(%x+)"
  return ("0"):rep(2 * register.width - #digits) .. digits, text:match " %((.*)%)$" or ""
end

local function has_changed(d, slot)
  local seen = rawget(d, "seen")
  return seen and seen[slot] ~= d[slot]
end

local function add_line(lines, d, register, slot, name, at)
  local value, fields = value_text(d, register, slot)
  local marks = register.todo and "todo " or ""
  local place = at and ("%04x"):format(at) or "   -"
  lines[#lines + 1] = (("%s %s %-10s %s  %s%s"):format(has_changed(d, slot) and "*" or " ", place,
    name, value, marks, fields):gsub("%s+$", ""))
end

local MOST = 16 -- elements of an array

local function add_register(lines, d, register)
  local slot = register.slot
  if register.fifo then
    local fifo = d[slot]
    lines[#lines + 1] = ("  %04x %-10s %d of %d%s"):format(register.at, register.name, fifo.count,
      fifo.depth, fifo.lost > 0 and (", %d lost"):format(fifo.lost) or "")
  elseif register.precious then
    lines[#lines + 1] = ("  %04x %-10s (precious)"):format(register.at, register.name)
  elseif register.count then
    for i = 0, math.min(register.count, MOST) - 1 do
      add_line(lines, d, register, slot + i, ("%s[%d]"):format(register.name, i),
        register.at and register.at + i * register.stride)
    end
    if register.count > MOST then
      lines[#lines + 1] = ("  ... %d more"):format(register.count - MOST)
    end
  else
    add_line(lines, d, register, slot, register.name, register.at)
  end
end

--- The registers, lines and timers as text; what has changed since the last dump is marked with *.
function methods.dump(d)
  local layout = rawget(d, "class").layout
  local out = { d.name }
  for _, region in ipairs(layout.regions) do
    if #layout.regions > 1 then out[#out + 1] = region.name .. ":" end
    for _, register in ipairs(region.registers) do add_register(out, d, register) end
  end
  for _, about in ipairs(layout.lines) do
    out[#out + 1] = ("  line %s: %s"):format(about.name, d[about.slot].level and "up" or "down")
  end
  for _, name in ipairs(sorted(rawget(d, "alarms"))) do
    out[#out + 1] = ("  timer %s: in %.6f s"):format(name, d:left(name) or 0)
  end
  for _, name in ipairs(sorted(layout.spec.state or {})) do
    out[#out + 1] = ("  %s: %s"):format(name, tostring(d[name]))
  end
  methods.mark(d)
  return table.concat(out, "\n")
end

--- From here on, dumps mark what changes.
function methods.mark(d)
  local seen, layout = {}, rawget(d, "class").layout
  for _, register in ipairs(layout.registers) do
    if not register.fifo then
      for slot = register.slot, register.slot + (register.count or 1) - 1 do
        seen[slot] = d[slot]
      end
    end
  end
  rawset(d, "seen", seen)
end

-- ---- The description ----

local function masks_of(register)
  local masks = {}
  for name, mask in pairs(register.masks) do masks[name] = bits.plain(mask, 8 * register.width) end
  masks.hidden = bits.plain(register.hidden, 8 * register.width)
  masks.reserved = bits.plain(register.reserved, 8 * register.width)
  return masks
end

local function field_of(field)
  return {
    name = field.name, low = field.low, high = field.high, access = field.access,
    enum = copy(field.enum), todo = field.todo, follows = field.follows, after = field.after,
    doc = field.doc, hooked = { read = field.read ~= nil, write = field.write ~= nil },
    reset = bits.plain(u64.rshift(u64.band(field.register.reset, field.mask), field.low),
      field.count),
  }
end

-- Where a port leads.
local function port_of(port)
  if not port then return nil end
  local steps = {}
  for i, step in ipairs(port.steps or {}) do
    steps[i] = { name = step.target.name, when = step.when }
  end
  return { kind = port.kind, steps = port.steps and steps, rest = port.rest and port.rest.name,
    target = port.target and port.target.name, high_first = port.high_first,
    region = port.region and port.region.name, index = port.index, step = port.step }
end

local function register_of(register)
  local fields = {}
  for i, field in ipairs(register.fields) do fields[i] = field_of(field) end
  return {
    name = register.name, at = register.at, width = register.width, access = register.access,
    region = register.region.name, reset = bits.plain(register.reset, 8 * register.width),
    resets = copy(register.resets), port = register.port and register.port.kind,
    leads_to = port_of(register.port),
    block = register.block and { read = register.block.read ~= nil,
      write = register.block.write ~= nil } or nil,
    count = register.count, stride = register.count and register.stride, fifo = register.fifo,
    face = register.face, when = register.when, todo = register.todo,
    precious = register.precious, narrow = register.narrow, follows = register.follows,
    doc = register.doc, fields = fields, masks = masks_of(register),
    hooked = { read = register.read ~= nil, write = register.hooked_write },
  }
end

--- What a device (an instance or a class) is made of, as plain tables, made anew by each call:
---   name, version
---   regions    a list of { name =, size =, width =, endian =, narrow =, unknown =, whole = (it has
---              functions in place of registers) }
---   registers  a list by region and offset of { name =, at =, width =, region =, access =,
---              reset =, count =, stride =, fifo =, face = ("read" or "write", where another
---              register has the other direction), when = (a function), todo =, precious =,
---              narrow =, follows =, hooked = { read =, write = }, fields =, masks = }; masks has
---              the bits of each kind of access (rw, ro, w1c, w1s, w0c, wc, toggle, rc, rs),
---              hidden, and reserved; at is false of one that is not on the bus; resets is a list
---              from 0 of an array whose elements differ; port is "sequence", "pair" or "bank", and
---              leads_to says to which registers or region it leads; block = { read =, write = }
---              says which block functions it has
---   lines      a list of { name =, rule = (as in the table), ruled = }
---   timers, inputs, state, holds, keeps, buffers  lists of names
function M.layout(device)
  local layout = M.layout_of(device)
  if not layout then error("device.layout: a device or a class of devices expected", 2) end
  local spec = layout.spec
  local made = { name = layout.name, version = spec.version or 1, doc = spec.doc,
    regions = {}, registers = {},
    lines = {}, timers = sorted(spec.timers or {}), state = sorted(spec.state or {}),
    holds = sorted(layout.holds), keeps = sorted(layout.keeps), buffers = sorted(layout.buffers),
    inputs = type(spec.inputs) == "table" and sorted(spec.inputs) or {} }
  for i = 1, type(spec.inputs) == "number" and spec.inputs or 0 do made.inputs[i] = i - 1 end
  for i, region in ipairs(layout.regions) do
    made.regions[i] = { name = region.name, size = region.size, width = region.width,
      endian = region.endian, narrow = region.narrow, unknown = region.unknown,
      whole = region.whole and true or nil }
    for _, register in ipairs(region.registers) do
      made.registers[#made.registers + 1] = register_of(register)
    end
  end
  for i, about in ipairs(layout.lines) do
    made.lines[i] = { name = about.name, rule = copy(about.rule), ruled = about.ruled }
  end
  return made
end

--- The layout of a device or class; nil for anything else.
function M.layout_of(device)
  if type(device) ~= "table" then return nil end
  local kind = rawget(device, "class") or device
  return type(kind) == "table" and rawget(kind, "layout") or nil
end

return M
