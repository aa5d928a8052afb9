-- SPDX-License-Identifier: MIT
-- Makes of a peripheral of an SVD file what the device kit takes: names that it can have, one
-- register at a place. What does not fit is marked as `out` with the reason, and noted.

local bits = require "lunavisor.device.bits"
local instances = require "lunavisor.device.instance"
local items = require "lunavisor.svd.item"
local u64 = require "lunavisor.text.u64"

local M = {}

local READ_ONLY = { ro = true, rc = true, rs = true, const = true }
local BYTES_MOST = 2 ^ 20 -- of a peripheral's registers

-- ---- Names ----

-- A function(wanted) that gives a name that is not taken, as near to the wanted one as can be, and
-- takes it.
local function namer(taken)
  local last = {} -- number of a wanted name: a file may have one a thousand times
  return function(wanted)
    local name, n = wanted, last[wanted] or 1
    while taken[name] do
      n = n + 1
      name = ("%s_%d"):format(wanted, n)
    end
    last[wanted], taken[name] = n, true
    return name
  end
end

local function rename(self, one, name)
  if name ~= one.name then
    one.remarks[#one.remarks + 1] = items.note(self, one, one.where, "it is called %s here", name)
    one.name = name
  end
end

-- Names the registers; returns what names the lines.
local function name_registers(self)
  local free = namer(setmetatable({}, { __index = function(_, name)
    return instances.OWN[name] or instances.methods[name]
  end }))
  for _, register in ipairs(self.registers) do
    local name = register.name:gsub("[^%w_]", "_"):gsub("^%d", "_%0")
    rename(self, register, free(name == "" and "_" or name))
  end
  return free
end

local function name_fields(self, register)
  local free = namer { value = true }
  for _, field in ipairs(register.fields) do rename(self, field, free(field.name)) end
end

local function name_lines(self, free)
  local given, kept = {}, {}
  for _, line in ipairs(self.interrupts) do
    local name = line.name:gsub("[^%w_]", "_")
    if not given[name] then -- some files have one more than once
      given[name] = true
      line.name = free(name)
      kept[#kept + 1] = line
    end
  end
  self.interrupts = kept
end

-- ---- Places ----

-- Whether two registers can be at one place.
local function share(one, other)
  return READ_ONLY[one.access] and other.access == "wo"
    or one.access == "wo" and READ_ONLY[other.access]
end

-- The first register that is in the way of another one; else it has its place.
local function settle(places, register)
  local count, stride, width = register.count or 1, register.stride or 0, register.width
  for pass = 1, 2 do
    for index = 0, count - 1 do
      local at = register.at + index * stride
      for byte = at, at + width - 1 do
        local list = places[byte]
        if pass == 1 then
          for _, other in ipairs(list or {}) do
            if not share(register, other) then return other end
          end
        elseif list then
          list[#list + 1] = register
        else
          places[byte] = { register }
        end
      end
    end
  end
  return nil
end

local function place(self, register, places, bytes)
  local function out(form, ...)
    register.out = items.note(self, register, register.where, form, ...)
    return bytes
  end
  local count, stride = register.count, register.stride
  if count and stride < register.width then
    return out("its elements are %d bytes apart, and %d bytes wide", stride, register.width)
  elseif count and stride > 65536 then
    return out("its elements are %d bytes apart: at most 65536 expected", stride)
  end
  local total = bytes + (count or 1) * register.width
  if total > BYTES_MOST then
    return out("more than %d bytes of registers with it: that is memory", BYTES_MOST)
  end
  local other = settle(places, register)
  if other then
    return out("%s is at its place, 0x%x: give both a when", other.name, register.at)
  end
  return total
end

local function by_offset(list)
  for i, one in ipairs(list) do one.order = i end
  table.sort(list, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    return a.order < b.order
  end)
end

-- ---- Fields ----

local function fit_fields(self, register)
  for i, one in ipairs(register.fields) do one.order = i end
  table.sort(register.fields, function(a, b)
    if a.low ~= b.low then return a.low < b.low end
    return a.order < b.order
  end)
  local last
  local known = bits.zero
  for _, field in ipairs(register.fields) do
    if not field.out and last and field.low <= last.high then
      field.out = items.note(self, field, field.where, "%s has its bits: one of them expected",
        last.name)
    elseif not field.out then
      last = field
      known = u64.bor(known, bits.mask(field.low, field.high - field.low + 1))
    end
  end
  if last and bits.without(register.reset, known) ~= bits.zero then register.rest = "const" end
end

--- Makes it fit.
function M.fit(self)
  local free = name_registers(self)
  by_offset(self.registers)
  local places, bytes, last = {}, 0, 0
  for _, register in ipairs(self.registers) do
    if not register.out then bytes = place(self, register, places, bytes) end
    if not register.out then
      last = math.max(last, register.at + ((register.count or 1) - 1) * (register.stride or 0)
        + register.width)
    end
    name_fields(self, register)
    fit_fields(self, register)
  end
  self.size = math.max(self.size, last)
  name_lines(self, free)
  self.title = self.name == "" and "_" or self.name:gsub("[^%w_.-]", "_")
  return self
end

return M
