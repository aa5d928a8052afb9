-- SPDX-License-Identifier: MIT
-- What the elements of an SVD file have: their own, or those of the element that they are derived
-- from.

local u64 = require "lunavisor.text.u64"
local xml = require "lunavisor.svd.xml"

local M = {}

local Tree = {}
Tree.__index = Tree
M.Tree = Tree

local DERIVED_MOST = 32  -- steps from an element to what it comes from in the end
local NAME_MOST = 200
local ARRAYS_MOST = 1000 -- of an element, of which one is looked for by the name of an element
local COMPARED_MOST = 2 ^ 23

-- The elements that have names, and those that only hold them.
local NAMED = { peripheral = true, register = true, cluster = true, field = true,
  enumeratedValues = true }
local HOLDS = { peripherals = true, registers = true, fields = true }

-- ---- Elements ----

--- Raises for an element.
function Tree:fail(node, form, ...)
  xml.fail(self.file, node, form, ...)
end

-- The first element of each tag in an element.
local function by_tag(node)
  local by = node.by
  if not by then
    by = {}
    for _, child in ipairs(node) do by[child.tag] = by[child.tag] or child end
    node.by = by
  end
  return by
end

--- The element of that tag in another one, or in what that is derived from.
function Tree.child(_, node, tag)
  while node do
    local found = by_tag(node)[tag]
    if found then return found end
    node = node.base
  end
  return nil
end

local function clean(text)
  return (text:gsub("[%s%c]+", " "):gsub("^ ", ""):gsub(" $", ""))
end

M.clean = clean

--- The text of that tag, nil where there is none.
function Tree:text(node, tag)
  local found = self:child(node, tag)
  if not found then return nil end
  found.clean = found.clean or found.text and clean(found.text)
  return found.clean ~= "" and found.clean or nil, found
end

--- The name of an element.
function Tree:name(node)
  local name, at = self:text(node, "name")
  if not name then
    self:fail(at or node, "<%s> without a name: <name> with a text in it expected", node.tag)
  elseif #name > NAME_MOST then
    self:fail(at, "a name of %d bytes: at most %d expected", #name, NAME_MOST)
  end
  return name
end

-- ---- Numbers ----

local SCALES = { k = 2 ^ 10, m = 2 ^ 20, g = 2 ^ 30, t = 2 ^ 40 }

-- A scaledNonNegativeInteger of CMSIS-SVD as a u64, nil where it is none.
local function value_of(text)
  local digits = text:match "^%+?0[xX](%x+)$"
  if digits then
    digits = digits:gsub("^0+(%x)", "%1")
    return #digits <= 16 and u64("0x" .. digits) or nil
  end
  digits = text:match "^%+?#([01]+)$" or text:match "^%+?0[bB]([01]+)$"
  if digits then
    digits = digits:gsub("^0+(%d)", "%1")
    if #digits > 64 then return nil end
    local value = u64(0)
    for digit in digits:gmatch "%d" do
      value = u64.bor(u64.lshift(value, 1), u64(tonumber(digit)))
    end
    return value
  end
  local number, scale = text:match "^%+?(%d+)([kmgtKMGT]?)$"
  number = number and #number <= 15 and tonumber(number) * (SCALES[scale:lower()] or 1)
  return number and number <= 2 ^ 53 and u64(number) or nil
end

--- The u64 that the text of that tag is, nil where there is none.
function Tree:value(node, tag)
  local text, at = self:text(node, tag)
  if not text then return nil end
  local value = value_of(text)
  if not value then
    self:fail(at, "<%s> is %q: a number below 2^64 such as 16, 0x10 or #10000 expected", tag,
      text:sub(1, 40))
  end
  return value, at
end

--- The same as a number that is no more than `most`.
function Tree:number(node, tag, most)
  local value, at = self:value(node, tag)
  if not value then return nil end
  if u64.lt(u64(most), value) then
    self:fail(at, "<%s> is %s: at most %s expected", tag, u64.hex(value), u64.hex(most))
  end
  return u64.tonumber(value), at
end

--- Which of the words of a set, by themselves in lower case, the text of that tag is; nil where
--- there is none. For one that is none of them, `complain` is called with the element and a text.
function Tree:word(node, tag, set, complain)
  local text, at = self:text(node, tag)
  local word = text and set[text:lower()]
  if text and not word then
    local words = {}
    for _, one in pairs(set) do words[#words + 1] = one end
    table.sort(words)
    complain(at, ("<%s> is %q, and is left out: one of %s expected"):format(tag, text:sub(1, 40),
      table.concat(words, ", ")))
  end
  return word
end

-- ---- derivedFrom ----

-- Notes an element by its name; one with %s goes by the name without that too.
local function add_name(names, node)
  local name = by_tag(node).name
  name = name and name.text and clean(name.text)
  if not name then return end
  names[name] = names[name] or node
  local front, behind = name:match "^(.-)%[?%%s%]?(.*)$"
  if front then
    names[front .. behind] = names[front .. behind] or node
    if #names < ARRAYS_MOST then
      names[#names + 1] = { front = front, behind = behind, node = node }
    end
  end
end

-- The elements of an element that have names, by these; what only holds others is looked through.
local function names_in(node)
  local names = node.names
  if names then return names end
  names = {}
  node.names = names
  local function add(holder)
    for _, child in ipairs(holder) do
      if HOLDS[child.tag] then
        add(child)
      elseif NAMED[child.tag] then
        add_name(names, child)
      end
    end
  end
  add(node)
  return names
end

-- The array that an element's name is one of.
local function array_of(self, names, name)
  for _, array in ipairs(names) do
    self.compared = self.compared + 1
    if self.compared > COMPARED_MOST then return nil end
    local front, behind = array.front, array.behind
    if #name > #front + #behind and name:sub(1, #front) == front
      and name:sub(#name - #behind + 1) == behind
      and not name:sub(#front + 1, #name - #behind):find "[^%w_]" then
      return array.node
    end
  end
  return nil
end

-- The element of that name in an element, or in what that is derived from. Circles are not known
-- of yet.
local function named(self, node, name)
  for _ = 0, DERIVED_MOST do
    local names = names_in(node)
    local found = names[name] or array_of(self, names, name)
    if found or not node.base then return found end
    node = node.base
  end
  return nil
end

local function descend(self, node, path, tag)
  for part in path:gmatch "[^.]+" do node = node and named(self, node, part) end
  return node and node.tag == tag and node or nil
end

-- The element that a path means, for one that is at a place: in what is around it first.
local function find(self, node, path)
  local around = node.parent
  while around do
    local found = not HOLDS[around.tag] and descend(self, around, path, node.tag)
    if found and found ~= node then return found end
    around = around.parent
  end
  return node.tag == "enumeratedValues" and self.enums[path] or nil
end

-- All elements that are derived from another one, and all enumerated values by their name.
local function collect(self, node, list)
  if node.from then list[#list + 1] = node end
  if node.tag == "enumeratedValues" then
    local name = by_tag(node).name
    if name and name.text then
      self.enums[clean(name.text)] = self.enums[clean(name.text)] or node
    end
  end
  for _, child in ipairs(node) do collect(self, child, list) end
end

local function check_chain(self, node)
  local at, steps, seen = node, 0, {}
  while at.base do
    if seen[at] then
      self:fail(node, "<%s> is derived from %q, and that in the end from itself: no circle "
        .. "expected", node.tag, node.from:sub(1, 80))
    end
    seen[at], steps, at = true, steps + 1, at.base
    if steps > DERIVED_MOST then
      self:fail(node, "<%s> is derived from %q over more than %d others", node.tag,
        node.from:sub(1, 80), DERIVED_MOST)
    end
  end
end

--- The tree of a file, with all that is derived. nil, message where the file cannot be read.
function M.read(file)
  local root, message = xml.read(file)
  if not root then return nil, message end
  local self = setmetatable({ file = file, root = root, enums = {}, compared = 0 }, Tree)
  if root.tag ~= "device" then self:fail(root, "<%s>: <device> expected", root.tag:sub(1, 40)) end
  local list = {}
  collect(self, root, list)
  for _, node in ipairs(list) do
    if NAMED[node.tag] then
      local base = find(self, node, clean(node.from))
      if not base and node.tag ~= "enumeratedValues" then
        self:fail(node, "<%s> is derived from %q: there is no such <%s>", node.tag,
          clean(node.from):sub(1, 80), node.tag)
      end
      node.base, node.lost = base, not base
    end
  end
  for _, node in ipairs(list) do check_chain(self, node) end
  return self
end

return M
