-- SPDX-License-Identifier: MIT
-- Memory that a device has of its own, from its table: buffers = { name = size }. States have the
-- pages of it that are not zero.

local buffers = require "lunavisor.memory.buffer"
local check = require "lunavisor.check"
local class = require "lunavisor.class"

local M = {}

local PAGE = 4096
M.PAGE = PAGE

-- ---- In the table ----

local function size_of(value)
  local ok, size = pcall(check.size, "", value, 2)
  return ok and size > 0 and size % PAGE == 0 and size or nil
end

--- Checks the table's `buffers`, whose sizes are numbers then.
function M.check(layout)
  local spec, sizes = layout.spec, {}
  if spec.buffers ~= nil and type(spec.buffers) ~= "table" then
    layout.blame("buffers", ("a table of sizes by name expected, got %s"):format(
      class.describe(spec.buffers)))
  end
  for name, value in pairs(spec.buffers or {}) do
    local path = "buffers." .. tostring(name)
    sizes[name] = size_of(value)
    if not sizes[name] then
      layout.blame(path, ("a size of whole pages of %d bytes expected, got %s"):format(PAGE,
        tostring(value)))
    elseif (spec.state or {})[name] ~= nil then
      layout.blame(path, ("a declared field is called %s too"):format(name), "state." .. name)
    end
  end
  layout.buffers = sizes
end

--- Gives an instance its memory.
function M.add(d, layout)
  for name, size in pairs(layout.buffers) do
    d.buffers[name] = assert(buffers.new { size = size })
  end
end

-- ---- In a state ----

local ZEROS = ("\0"):rep(PAGE)

-- The offsets of a buffer's pages that are not all zero. What is behind a page of zeros is compared
-- with what is one page before it: so the first difference is the next such page.
local function pages(buffer)
  local list, at, size = {}, 0, buffer.size
  while at < size do
    local distance = 0
    if buffer:read(at, PAGE) == ZEROS then
      distance = buffer:compare(at + PAGE, buffer, at, size - at - PAGE)
      if not distance then break end
    else
      list[#list + 1] = at
    end
    at = at + PAGE + distance - distance % PAGE
  end
  return list
end

M.pages = pages

--- What a state has of a device's memory: by name, pages by offset.
function M.save(d)
  local saved = {}
  for name, buffer in pairs(d.buffers) do
    local made = {}
    for _, at in ipairs(pages(buffer)) do made[at] = buffer:read(at, PAGE) end
    saved[name] = made
  end
  return saved
end

--- Whether a buffer of so many bytes can be what a state has for it.
function M.fits(size, saved)
  if type(saved) ~= "table" then return false end
  for at, data in pairs(saved) do
    if type(at) ~= "number" or at < 0 or at >= size or at % PAGE ~= 0 or type(data) ~= "string"
      or #data ~= PAGE then
      return false
    end
  end
  return true
end

--- Puts back what M.save gave of a buffer.
function M.load(buffer, saved)
  for _, at in ipairs(pages(buffer)) do
    if not saved[at] then buffer:fill(0, at, PAGE) end
  end
  for at, data in pairs(saved) do buffer:write(at, data) end
end

return M
