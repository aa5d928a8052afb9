-- SPDX-License-Identifier: MIT
-- The formats that luna.load knows, and which of them an image is. Each is loaded when an image may
-- be of it.

local magic = require "lunavisor.load.magic"

local M = {}

-- In the order in which an image is asked whether it is one: the name, and the bytes that such an
-- image has among its first, nil where it has none.
local ORDER = {
  { "linux", magic.LINUX }, { "multiboot2", magic.MULTIBOOT2 }, { "multiboot", magic.MULTIBOOT },
  { "pvh", magic.ELF }, { "elf", magic.ELF }, { "bios" }, { "disk" }, { "flat" },
}
local LOOKED_AT = 32768

local FLAT = { bios = true, disk = true, flat = true } -- in one file

local names, known = {}, {}
for i, format in ipairs(ORDER) do names[i], known[format[1]] = format[1], true end
M.names = table.concat(names, ", ")

--- By name: { name, title, takes, recognise, load }.
M.by_name = setmetatable({}, { __index = function(by_name, name)
  if not known[name] then return nil end
  by_name[name] = FLAT[name] and require "lunavisor.load.flat"[name]
    or require("lunavisor.load." .. name)
  return by_name[name]
end })

--- The format that an image (reader.open) is of; nil for none.
function M.recognise(image)
  local first = image.bytes:sub(1, LOOKED_AT)
  for _, format in ipairs(ORDER) do
    local may_be = not format[2] or first:find(format[2], 1, true)
    if may_be and M.by_name[format[1]].recognise(image) then return M.by_name[format[1]] end
  end
end

return M
