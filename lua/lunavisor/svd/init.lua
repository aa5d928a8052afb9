-- SPDX-License-Identifier: MIT
-- CMSIS-SVD: the description of a microcontroller's peripherals as tables of the device kit.

local class = require "lunavisor.class"
local draft = require "lunavisor.svd.draft"
local fit = require "lunavisor.svd.fit"
local peripherals = require "lunavisor.svd.peripheral"
local trees = require "lunavisor.svd.tree"

local M = {}

local PARTS_MOST = 2 ^ 18 -- registers, fields and values that a file comes to

local Budget = {}
Budget.__index = Budget

function Budget.take(self, node, count)
  self.left = self.left - count
  if self.left < 0 then
    self.tree:fail(node, "the file comes to more than %d registers, fields and values with all "
      .. "that is derived or an array", PARTS_MOST)
  end
end

-- Calls a function; nil and a message where the file is not as it has to be.
local function guarded(fn, ...)
  local ok, result, message = pcall(fn, ...)
  if ok then return result, message end
  if type(result) == "table" and result.svd then return nil, result.svd end
  error(result, 0)
end

local Svd = {}
Svd.__index = Svd

local function open(path)
  local tree, message = trees.read(path)
  if not tree then return nil, message end
  local self = setmetatable({ tree = tree, list = peripherals.list(tree) }, Svd)
  self.budget = setmetatable({ tree = tree, left = PARTS_MOST }, Budget)
  self.name = tree:text(tree.root, "name") or "?"
  local cpu = tree:child(tree.root, "cpu")
  self.endian = cpu and tree:text(cpu, "endian")
  return self
end

--- An SVD file: { name =, list = of { name =, base = } }. nil, message.
function M.open(path)
  local made, message = guarded(open, path)
  return made, message
end

local function table_of(self, entry)
  local one = fit.fit(peripherals.new(self.tree, self.budget, entry))
  return draft.table(one, self.endian), one.notes
end

local function of_one(self, entry)
  local lines, notes = table_of(self, entry)
  local out = draft.head(("%s of %s"):format(entry.name, self.name),
    self.tree.file:match "[^/]*$", lines)
  lines[1] = "return " .. lines[1]
  for _, line in ipairs(lines) do out[#out + 1] = line end
  return { text = table.concat(out, "\n") .. "\n", notes = notes }
end

-- A function for each: Lua has limits for one.
local function of_all(self)
  local body, notes, names = { "local peripherals = {}" }, {}, {}
  for _, entry in ipairs(self.list) do
    local lines, own = table_of(self, entry)
    local name = entry.name:gsub("[^%w_]", "_"):gsub("^%d", "_%0")
    while names[name] or not (loadstring or load)("local " .. name) do name = name .. "_" end
    names[name] = true
    body[#body + 1] = ("\nfunction peripherals.%s()\n  return %s"):format(name, lines[1])
    for i = 2, #lines do body[#body + 1] = "  " .. lines[i] end
    body[#body + 1] = "end"
    for _, one in ipairs(own) do notes[#notes + 1] = one end
  end
  body[#body + 1] = "\nreturn peripherals"
  local out = draft.head(("The peripherals of %s"):format(self.name),
    self.tree.file:match "[^/]*$", body)
  for _, line in ipairs(body) do out[#out + 1] = line end
  return { text = table.concat(out, "\n") .. "\n", notes = notes }
end

--- { text = Lua, notes = a list of { line =, where =, text = } of what is not in it as the file has
--- it } of the peripheral of that name: a file that returns { device, mmio = address }. Without a
--- name of all: a table of functions by their names, which return such lists. nil, message.
function Svd.draft(self, name)
  if not name then
    local made, message = guarded(of_all, self)
    return made, message
  end
  local names = {}
  for _, entry in ipairs(self.list) do
    names[entry.name] = true
    if entry.name == name then
      local made, message = guarded(of_one, self, entry)
      return made, message
    end
  end
  return nil, ("%s has no peripheral %s%s"):format(self.tree.file, name, class.hint(name, names))
end

return M
