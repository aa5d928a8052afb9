-- SPDX-License-Identifier: MIT
-- The formats that luna.load knows, and which of them an image is.

local flat = require "lunavisor.load.flat"

local M = {}

--- In the order in which an image is asked whether it is one.
M.list = {
  require "lunavisor.load.linux", require "lunavisor.load.multiboot2",
  require "lunavisor.load.multiboot", require "lunavisor.load.pvh", require "lunavisor.load.elf",
  flat.bios, flat.disk, flat.flat,
}

--- By name.
M.by_name = {}
local names = {}
for i, format in ipairs(M.list) do
  M.by_name[format.name], names[i] = format, format.name
end
M.names = table.concat(names, ", ")

--- The format that an image (reader.open) is of; nil for none.
function M.recognise(image)
  for _, format in ipairs(M.list) do
    if format.recognise(image) then return format end
  end
end

return M
