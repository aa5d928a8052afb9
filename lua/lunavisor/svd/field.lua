-- SPDX-License-Identifier: MIT
-- The fields of a register of an SVD file, with their enumerated values.

local accesses = require "lunavisor.svd.access"
local bits = require "lunavisor.device.bits"
local indices = require "lunavisor.svd.index"
local items = require "lunavisor.svd.item"
local u64 = require "lunavisor.text.u64"

local M = {}

local FIELDS, VALUES = { field = true }, { enumeratedValues = true }

-- ---- Where ----

-- The lowest and highest bit: lsb and msb, bitOffset and bitWidth, or bitRange.
local function span(tree, node)
  local low, high = tree:number(node, "lsb", 63), tree:number(node, "msb", 63)
  local offset = tree:number(node, "bitOffset", 63)
  local range, at = tree:text(node, "bitRange")
  if offset then
    low, high = offset, offset + (tree:number(node, "bitWidth", 64) or 1) - 1
  elseif range then
    high, low = range:match "^%[(%d%d?)%s*:%s*(%d%d?)%]$"
    high, low = tonumber(high), tonumber(low)
    if not high then
      tree:fail(at, "<bitRange> is %q: bits such as [7:0] expected", range:sub(1, 40))
    end
  end
  if not low or not high then
    tree:fail(node, "<field> %s: bitRange, lsb and msb, or bitOffset expected", tree:name(node))
  elseif high < low or high > 63 then
    tree:fail(node, "<field> %s has bits %d to %d: from the lowest to the highest expected",
      tree:name(node), low, high)
  end
  return low, high
end

-- ---- Enumerated values ----

-- The number of a value such as 3, 0x3 or #011; nil and a reason.
local function enumerated(tree, node, count)
  local text = tree:text(node, "value")
  if not text then
    return nil, tree:text(node, "isDefault") and "is for all other values" or "has no value"
  elseif text:find "^[#0][bB]?[01xX]+$" and text:find "[xX]" and not text:find "^0[xX]%x+$" then
    return nil, ("is for all values %s"):format(text)
  end
  local value = tree:value(node, "value")
  if bits.fits(value, count) == nil then
    return nil, ("is %s, more than %d bit%s have"):format(u64.hex(value), count,
      count == 1 and "" or "s")
  end
  return value
end

local function add_values(self, holder, field, where)
  local tree, taken, names = self.tree, {}, {}
  local at = holder
  while at do
    for _, node in ipairs(at) do
      if node.tag == "enumeratedValue" then
        self.budget:take(node, 1)
        local name = tree:name(node)
        local value, reason = enumerated(tree, node, field.high - field.low + 1)
        local key = value and u64.hex(value)
        if value and taken[key] then reason = ("is %s, as %s is"):format(key, taken[key]) end
        if names[name] then reason = "is there twice" end
        if reason then
          items.note(self, node, where, "its value %s %s: not in the table", name, reason)
        else
          taken[key], names[name] = name, true
          field.enum[#field.enum + 1] = { name = name, value = value }
        end
      end
    end
    at = #field.enum == 0 and at.base or nil
  end
end

-- A field may have one set of values for reads and one for writes; the table has one.
local function add_enum(self, node, field, where)
  local sets = {}
  local at = node
  while at and #sets == 0 do
    for _, child in ipairs(at) do
      if VALUES[child.tag] then sets[#sets + 1] = child end
    end
    at = at.base
  end
  local chosen = sets[1]
  for _, set in ipairs(sets) do
    if self.tree:text(set, "usage") == "read" then chosen = set end
  end
  field.enum = {}
  for _, set in ipairs(sets) do
    if set.lost then
      field.remarks[#field.remarks + 1] = items.note(self, set, where,
        "no enumerated values: there are none that are called %s", set.from)
    end
  end
  if chosen then add_values(self, chosen, field, where) end
  for _, set in ipairs(sets) do
    if set ~= chosen then
      items.note(self, set, where, "a second set of enumerated values: not in the table")
    end
  end
end

-- ---- Fields ----

local function add_field(self, register, node, name, low, high, about)
  local where = register.where .. "." .. name
  local field = { name = name, low = low, high = high, doc = items.doc(self, node),
    line = node.line, where = where, remarks = {} }
  local own = accesses.of(self.tree, node, about, items.complainer(self, where))
  local reason
  self.budget:take(node, 1)
  field.access, reason = accesses.kind(own)
  if reason and not accesses.same(own, about) then
    field.remarks[1] = items.note(self, node, where, "%s", reason)
  elseif reason then
    register.inherited = true
  end
  if high >= 8 * register.width then
    field.out = register.out or items.note(self, node, where, "bit %d is beyond the %d bits of "
      .. "the register", high, 8 * register.width)
  else
    add_enum(self, node, field, where)
  end
  register.fields[#register.fields + 1] = field
end

-- What all fields have, so that it can stand at the register.
local function common(list)
  local access = list[1] and list[1].access
  for _, field in ipairs(list) do
    if field.access ~= access then return nil end
  end
  return access
end

--- Gives a register its access and fields; `about` is what is said of it.
function M.add(self, register, about)
  local tree = self.tree
  local access, reason = accesses.kind(about)
  register.fields = {}
  for _, node in ipairs(items.of(self, register.node, "fields", FIELDS)) do
    local name, low, high = tree:name(node), span(tree, node)
    local dim = indices.of(tree, node)
    if not dim then add_field(self, register, node, name, low, high, about) end
    for i, index in ipairs(dim and indices.names(tree, node, dim) or {}) do
      local by = (i - 1) * dim.increment
      add_field(self, register, node, (name:gsub("%[?%%s%]?", (index:gsub("%%", "%%%%")))),
        low + by, high + by, about)
    end
  end
  if reason and (#register.fields == 0 or register.inherited) then
    register.remarks[#register.remarks + 1] = items.note(self, register.node, register.where, "%s",
      reason)
  end
  register.access = common(register.fields) or access
end

return M
