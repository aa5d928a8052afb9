-- SPDX-License-Identifier: MIT
-- A peripheral of an SVD file with all that is in it: arrays, clusters and derived elements are
-- worked out, what the kit has no word for is noted.

local accesses = require "lunavisor.svd.access"
local bits = require "lunavisor.device.bits"
local fields = require "lunavisor.svd.field"
local indices = require "lunavisor.svd.index"
local items = require "lunavisor.svd.item"
local u64 = require "lunavisor.text.u64"

local M = {}

local DEPTH_MOST = 16     -- clusters in clusters
local ADDRESS_MOST = 2 ^ 52

local WIDTHS = { [8] = 1, [16] = 2, [32] = 4, [64] = 8 }
local ITEMS = { register = true, cluster = true }

-- What is said for all that is in an element.
local function defaults_of(self, node, around)
  local tree = self.tree
  local made = accesses.of(tree, node, around, items.complainer(self, self.name))
  made.size = tree:number(node, "size", 2 ^ 20) or around.size
  made.reset = tree:value(node, "resetValue") or around.reset
  return made
end

-- ---- Registers ----

-- Whether there is a dim in a cluster, so that its own array cannot be one of each register.
local function has_dim(tree, node)
  if node.dimmed == nil then
    node.dimmed = false
    for _, child in ipairs(node) do
      if ITEMS[child.tag] and (tree:child(child, "dim") or has_dim(tree, child)) then
        node.dimmed = true
        break
      end
    end
    if not node.dimmed and node.base then node.dimmed = has_dim(tree, node.base) end
  end
  return node.dimmed
end

local function register_of(self, node, name, at, array, about)
  local where = ("%s.%s"):format(self.name, name)
  local register = { name = name, at = at, line = node.line, node = node, where = where,
    width = WIDTHS[about.size], count = array and array.count, stride = array and array.stride,
    doc = items.doc(self, node), remarks = {} }
  self.budget:take(node, 1)
  if not register.width then
    register.out = items.note(self, node, where, "it has %d bits: 8, 16, 32 or 64 expected",
      about.size)
    register.width = 1
  end
  register.reset = u64.band(about.reset, bits.all(register.width))
  fields.add(self, register, about)
  for _, child in ipairs(node) do
    if child.tag == "enumeratedValues" then
      register.remarks[#register.remarks + 1] = items.note(self, child, where,
        "enumerated values of no field: not in the table")
    end
  end
  self.registers[#self.registers + 1] = register
end

local add_items

-- Calls fn(name, offset, array) for what an element with a dim stands for.
local function each(self, node, prefix, offset, array, fn)
  local tree = self.tree
  local name, dim = tree:name(node), indices.of(tree, node)
  local plain = name:gsub("%[?%%s%]?", "")
  if not dim then return fn(prefix .. plain, offset, array) end
  local one_by_one = array or not dim.array
    or node.tag == "cluster" and has_dim(tree, node)
  if not one_by_one then
    return fn(prefix .. plain, offset, { count = dim.count, stride = dim.increment })
  end
  for i, index in ipairs(indices.names(tree, node, dim)) do
    self.budget:take(node, 1)
    fn(prefix .. name:gsub("%[?%%s%]?", (index:gsub("%%", "%%%%"))),
      offset + (i - 1) * dim.increment, array)
  end
end

local function add_item(self, node, ctx)
  local tree = self.tree
  local offset = tree:number(node, "addressOffset", ADDRESS_MOST)
  if not offset then
    tree:fail(node, "<%s> %s without <addressOffset>: where it is expected", node.tag,
      tree:name(node))
  end
  local about = defaults_of(self, node, ctx.about)
  each(self, node, ctx.prefix, ctx.offset + offset, ctx.array, function(name, at, array)
    if at > ADDRESS_MOST then tree:fail(node, "%s is beyond 2^52", name) end
    if node.tag == "register" then return register_of(self, node, name, at, array, about) end
    self.budget:take(node, 1)
    add_items(self, node, nil, { prefix = name .. "_", offset = at, array = array, about = about,
      depth = ctx.depth + 1 })
  end)
end

function add_items(self, node, holder, ctx)
  if ctx.depth > DEPTH_MOST then
    self.tree:fail(node, "more than %d clusters within one another: a circle of derivedFrom, or "
      .. "none that fits", DEPTH_MOST)
  end
  for _, item in ipairs(items.of(self, node, holder, ITEMS)) do add_item(self, item, ctx) end
end

-- ---- Peripherals ----

local function size_of(self, node)
  local size, tree = 0, self.tree
  for _, child in ipairs(node) do
    if child.tag == "addressBlock" then
      size = math.max(size, (tree:number(child, "offset", ADDRESS_MOST) or 0)
        + (tree:number(child, "size", ADDRESS_MOST) or 0))
    end
  end
  if size == 0 and node.base then return size_of(self, node.base) end
  return size <= ADDRESS_MOST and size or 0
end

local function interrupts_of(self, node)
  local list, tree = {}, self.tree
  for _, child in ipairs(node) do
    if child.tag == "interrupt" then
      list[#list + 1] = { name = tree:name(child), line = child.line,
        number = tree:number(child, "value", 2 ^ 20) }
    end
  end
  return list
end

--- A peripheral of the list with its registers.
function M.new(tree, budget, entry)
  local node = entry.node
  local self = { tree = tree, budget = budget, node = node, name = entry.name, base = entry.base,
    line = node.line, registers = {}, notes = {}, remarks = {} }
  local about = defaults_of(self, tree.root, { access = "read-write", size = 32,
    reset = u64(0) })
  self.doc, self.size = items.doc(self, node), size_of(self, node)
  self.interrupts = interrupts_of(self, node)
  add_items(self, node, "registers", { prefix = "", offset = 0, depth = 0,
    about = defaults_of(self, node, about) })
  return self
end

--- What the peripherals of a file are called and where they are: a list of { name =, base =,
--- node = }.
function M.list(tree)
  local list = {}
  for _, holder in ipairs(tree.root) do
    for _, node in ipairs(holder.tag == "peripherals" and holder or {}) do
      if node.tag == "peripheral" then
        local base = tree:number(node, "baseAddress", ADDRESS_MOST)
        if not base then
          tree:fail(node, "<peripheral> %s without <baseAddress>: where it is expected",
            tree:name(node))
        end
        local name, dim = tree:name(node), indices.of(tree, node)
        local plain = name:gsub("%[?%%s%]?", "")
        if not dim then list[#list + 1] = { name = plain, base = base, node = node } end
        for i, index in ipairs(dim and indices.names(tree, node, dim) or {}) do
          list[#list + 1] = { node = node, base = base + (i - 1) * dim.increment,
            name = (name:gsub("%[?%%s%]?", (index:gsub("%%", "%%%%")))) }
        end
      end
    end
  end
  return list
end

return M
