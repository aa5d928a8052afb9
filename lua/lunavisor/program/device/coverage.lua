-- SPDX-License-Identifier: MIT
-- luna device coverage: what the tables of devices declare and do not model, and where the
-- datasheet has it.

local device = require "lunavisor.device"
local opening = require "lunavisor.program.device.open"
local say = require "lunavisor.program.say"

local M = { about = "List what of devices is not modelled." }

local EPILOG = [[
Examples:
  luna device coverage
  luna device coverage --all
  luna device coverage shout.lua uart16550

Each line is a register or field with the place in the datasheet that tells of
it: what has todo = "..." in the table.]]

function M.describe(command)
  command:argument("file", "Files that return devices, or names of those that ship;\n"
    .. "all that ship where there is none."):args "*"
  command:flag("--all", "Name those too of which all is modelled.")
  command:epilog(EPILOG)
end

-- A device's part of the list: a heading with how much there is, and its entries.
local function part(dev, all)
  local layout, list = device.layout(dev), device.coverage(dev)
  if #list == 0 and not all then return nil end
  local out = { ("%s: %d register%s, %s"):format(layout.name, #layout.registers,
    #layout.registers == 1 and "" or "s", #list == 0 and "all modelled"
    or ("%d not modelled or in part"):format(#list)) }
  for _, entry in ipairs(list) do
    out[#out + 1] = ("  %-24s %s"):format(entry.name, entry.todo)
  end
  return table.concat(out, "\n"), #list
end

--- Status 0, whatever is left; 126 where a device cannot be had.
function M.run(options)
  local names = #options.file > 0 and options.file or opening.shipped()
  local count, all = 0, options.all or #options.file > 0
  for _, name in ipairs(names) do
    local dev, message = opening.device(name)
    if not dev then return say.cannot("device coverage: %s", message) end
    local text, left = part(dev, all)
    if text then print(text) end
    count = count + (left or 0)
  end
  print(("%d device%s, %d not modelled"):format(#names, #names == 1 and "" or "s", count))
  return 0
end

return M
