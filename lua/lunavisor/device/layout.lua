-- SPDX-License-Identifier: MIT
-- The whole table of a device, checked: its regions and their registers, and which register answers
-- a byte in which direction. A mistake raises at the author's line.

local class = require "lunavisor.class"
local registers = require "lunavisor.device.register"
local source = require "lunavisor.device.source"

local M = {}

local REGION = { width = true, unknown = true, endian = true, narrow = true, registers = true,
  size = true, read = true, write = true }

-- ---- Whom to blame ----

-- "STATUS.busy" for registers.STATUS.fields.busy.
local function title(path)
  return (path:gsub("%.?registers%.", "."):gsub("%.fields%.", "."):gsub("^%.", "")
    :gsub("^regions%.", ""))
end

--- A function blame(path, message, other, key) for a table that stands behind the call that `info`
--- tells of: it raises, with the line of the path, or of its `key`; `other` is another path that is
--- concerned, whose line is told too. `found`: what source.read says of it, nil where that is to be
--- read when there is something to blame.
function M.blamer(info, name, found)
  local function place(path, key)
    found = found or source.read(info, name)
    local lines = found and found.lines or {}
    while path do
      local full = key and (path == "" and key or path .. "." .. key) or path
      local line = lines[full]
      if line then return ("%s:%d: "):format(info.short_src, line), line end
      if key then key = nil else path = path:match "^(.*)%.[^.]*$" end
    end
    return info and info.currentline > 0 and ("%s:%d: "):format(info.short_src, info.currentline)
      or "", nil
  end
  return function(path, message, other, key)
    local _, line
    if other then _, line = place(other) end
    local text = path and path ~= "" and title(path) .. ": " or ""
    error(("%sdevice %s: %s%s%s"):format(place(path, key), name, text, message,
      line and (" (%s is at line %d)"):format(title(other), line) or ""), 0)
  end
end

-- ---- Regions ----

local policies = { ones = true, zeros = true, error = true }

local function check_region(blame, path, spec)
  local unknown = spec.unknown
  if unknown ~= nil and type(unknown) ~= "function" and not policies[unknown] then
    blame(path, ("unknown: 'ones', 'zeros', 'error' or a function expected, got %s"):format(
      tostring(unknown)), nil, "unknown")
  elseif spec.endian ~= nil and spec.endian ~= "little" and spec.endian ~= "big" then
    blame(path, ("endian: 'little' or 'big' expected, got %s"):format(tostring(spec.endian)), nil,
      "endian")
  elseif spec.narrow ~= nil and spec.narrow ~= "merge" and spec.narrow ~= "refuse" then
    blame(path, ("narrow: 'merge' or 'refuse' expected, got %s"):format(tostring(spec.narrow)),
      nil, "narrow")
  elseif spec.size ~= nil and not registers.is_whole(spec.size, 1, 2 ^ 52) then
    blame(path, ("size: a number of bytes expected, got %s"):format(tostring(spec.size)), nil,
      "size")
  elseif spec.read ~= nil or spec.write ~= nil then
    for _, key in ipairs { "read", "write" } do
      if type(spec[key]) ~= "function" or spec.registers ~= nil or not spec.size then
        blame(path, "a region without registers has a size and two functions, read and write", nil,
          spec.read ~= nil and "read" or "write")
      end
    end
  elseif type(spec.registers) ~= "table" then
    blame(path, ("registers: a table of registers by name expected, got %s"):format(
      class.describe(spec.registers)), nil, "registers")
  end
end

-- What a region says of itself, or the device for all.
local function setting(spec, device, key, default)
  if spec[key] ~= nil then return spec[key] end
  if device[key] ~= nil then return device[key] end
  return default
end

-- ---- Who answers ----

local READ_FACE = { ro = true, rc = true, rs = true, const = true }

-- Notes a register for a direction ("read" or "write") at its bytes. Two that are always there may
-- not meet.
local function cover(blame, region, direction, register, at, index)
  local face = { register = register, at = at, index = index }
  for byte = at, at + register.width - 1 do
    local list = region[direction][byte]
    if not list then
      list = {}
      region[direction][byte] = list
    end
    for _, other in ipairs(list) do
      if other.register == register or not other.register.when and not register.when then
        local one = other.register
        blame(register.path, ("%s at 0x%x..0x%x overlaps %s at 0x%x..0x%x for a %s; registers at "
          .. "one place need a 'when', or one is read ('ro') and the other written ('wo')"):format(
          register.name, at, at + register.width - 1, one.name, other.at,
          other.at + one.width - 1, direction), one.path)
      end
    end
    list[#list + 1] = face
  end
end

-- Whether a register shares a byte with one that is for the other direction alone.
local function shares(region, register)
  if not region.written and register.access ~= "wo" then return nil end
  for _, other in ipairs(region.registers) do
    if other ~= register and other.at and not other.when == not register.when
      and register.at <= registers.last(other) and other.at <= registers.last(register) then
      if register.access == "wo" and READ_FACE[other.access] then return "write" end
      if READ_FACE[register.access] and other.access == "wo" then return "read" end
    end
  end
  return nil
end

local function by_offset(a, b)
  if a.at ~= b.at then return (a.at or math.huge) < (b.at or math.huge) end
  if (a.when and 1 or 0) ~= (b.when and 1 or 0) then return a.when ~= nil end
  return a.name < b.name
end

M.by_offset = by_offset

local DIRECTIONS = { "read", "write" }

local function cover_all(blame, region)
  table.sort(region.registers, by_offset)
  for _, register in ipairs(region.registers) do
    register.face = register.at and shares(region, register) or nil
    for index = 0, register.at and (register.count or 1) - 1 or -1 do
      local at = register.at + index * register.stride
      for _, direction in ipairs(DIRECTIONS) do
        if not register.face or register.face == direction then
          cover(blame, region, direction, register, at, register.count and index or nil)
        end
      end
    end
    region.size = math.max(region.size, registers.last(register) + 1)
  end
end

local function region_of(layout, blame, path, name, spec, device)
  registers.check_keys(blame, path, spec, REGION, "a region")
  check_region(blame, path, { unknown = setting(spec, device, "unknown"), size = spec.size,
    read = spec.read, write = spec.write,
    endian = setting(spec, device, "endian"), narrow = setting(spec, device, "narrow"),
    registers = spec.registers })
  local region = {
    name = name, width = setting(spec, device, "width", 4),
    unknown = setting(spec, device, "unknown", "ones"),
    endian = setting(spec, device, "endian", "little"),
    narrow = setting(spec, device, "narrow", "merge"),
    registers = {}, read = {}, write = {}, size = 0,
    written = false, -- whether a register is for writes alone
    whole = spec.read and { read = spec.read, write = spec.write } or nil,
  }
  local prefix = path == "" and "registers." or path .. ".registers."
  for register_name, entry in pairs(spec.registers or {}) do
    local own = prefix .. tostring(register_name)
    if type(register_name) ~= "string" or not register_name:find "^[%a_][%w_]*$" then
      blame(own, ("a register cannot be called %s"):format(tostring(register_name)))
    end
    local register = registers.new(blame, own, register_name, entry, region)
    local other = layout.by[register_name]
    if other then
      blame(own, ("two regions have a register %s"):format(register_name), other.path)
    end
    layout.by[register_name] = register
    region.registers[#region.registers + 1] = register
    region.written = region.written or register.access == "wo"
  end
  cover_all(blame, region)
  if spec.size and spec.size < region.size then
    blame(path, ("size %d, and its registers take %d bytes"):format(spec.size, region.size), nil,
      "size")
  end
  region.size = spec.size or region.size
  layout.regions[#layout.regions + 1] = region
  layout.regions[name] = region
end

-- ---- References between registers ----

--- The register and field (nil for a whole register) that a text names: "ISR", "LCR.dlab"; within
--- `own`, a field alone.
function M.reference(layout, blame, path, what, text, own)
  if type(text) ~= "string" then
    blame(path, ("%s: a register or field by name expected, got %s"):format(what, tostring(text)))
  end
  if own and own.by[text] then return own, own.by[text] end
  local name, field = text:match "^([^.]+)%.?(.*)$"
  local register = layout.by[name]
  if not register then
    blame(path, ("%s: there is no register %s%s"):format(what, tostring(name),
      class.hint(name, layout.by)))
  elseif field ~= "" and not register.by[field] then
    blame(path, ("%s: register %s has no field %s%s"):format(what, name, field,
      class.hint(field, register.by)))
  elseif register.fifo or register.count then
    blame(path, ("%s: %s is no single register"):format(what, name))
  end
  return register, register.by[field]
end

local function follow(layout, blame, path, follower, register)
  if not follower.follows then return end
  local leader, field = M.reference(layout, blame, path, "follows", follower.follows, register)
  local after = follower.after
  if after ~= nil and (type(after) ~= "number" or after < 0 or after ~= after) then
    blame(path, ("after: a time in seconds expected, got %s"):format(tostring(after)))
  end
  if register.count or register.fifo then blame(path, "an array or FIFO cannot follow") end
  leader.leads[#leader.leads + 1] = { field = field, leader = leader, target = register,
    follower = follower ~= register and follower or nil, after = after,
    name = follower ~= register and register.name .. "." .. follower.name or register.name }
end

-- Gives each register its place in an instance: values stand in it by number.
local function place(layout)
  for _, region in ipairs(layout.regions) do
    for _, register in ipairs(region.registers) do
      register.slot = layout.slots + 1
      layout.slots = layout.slots + (register.count or 1)
      layout.registers[#layout.registers + 1] = register
    end
  end
end

--- The layout of a table; `info` tells of the call that it stands behind.
function M.new(info, name, spec)
  source.forget()
  local found = not source.is_own(info) and source.read(info, name) or nil
  local blame = M.blamer(info, name, found)
  for _, doubled in ipairs(found and found.doubled or {}) do
    found.lines[doubled.path] = doubled.again
    blame(doubled.path, ("%s stands twice in this table; line %d is lost"):format(
      doubled.path:match "[^.]*$", doubled.line), nil)
  end
  local layout = { name = name, regions = {}, registers = {}, by = {}, slots = 0, info = info,
    blame = blame, spec = spec }
  if spec.regions ~= nil and spec.registers ~= nil then
    blame("", "registers and regions: one or the other expected", nil, "regions")
  elseif type(spec.regions) == "table" then
    for region_name, region in pairs(spec.regions) do
      local path = "regions." .. tostring(region_name)
      if type(region) ~= "table" then blame(path, "a table expected") end
      region_of(layout, blame, path, region_name, region, spec)
    end
    table.sort(layout.regions, function(a, b) return a.name < b.name end)
  else
    region_of(layout, blame, "", "main", { registers = spec.registers, size = spec.size }, spec)
  end
  if not layout.regions[1] then blame("", "a region expected", nil, "regions") end
  place(layout)
  for _, register in ipairs(layout.registers) do
    follow(layout, blame, register.path, register, register)
    for _, field in ipairs(register.fields) do
      follow(layout, blame, field.path, field, register)
    end
  end
  return layout
end

return M
