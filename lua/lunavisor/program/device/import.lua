-- SPDX-License-Identifier: MIT
-- luna device import: tables of the kit from a CMSIS-SVD file.

local files = require "lunavisor.program.file"
local say = require "lunavisor.program.say"

local M = { about = "Make tables of a CMSIS-SVD file." }

local EPILOG = [[
Examples:
  luna device import chip.svd --list
  luna device import chip.svd --peripheral UART0 -o uart0.lua
  luna device import chip.svd >chip.lua

The file of one peripheral returns { device, mmio = address }, as luna boot
--device takes it; that of all returns a table of functions that do. What a
table cannot say is a comment there and a line on the standard error.]]

function M.describe(command)
  command:argument("file", "The SVD file.")
  command:option("--peripheral", "One of them; all without it."):argname "NAME"
  command:option("-o --output", "A new file; the standard output without it."):argname "FILE"
  command:flag("--list", "Only name the peripherals, with their addresses.")
  command:epilog(EPILOG)
end

local function put(options, text)
  if not options.output then
    io.stdout:write(text)
    return 0
  end
  local ok, message = files.create { { path = options.output, text = text } }
  return ok and 0 or say.cannot("--output: %s", message)
end

--- Status 0, also where there are lines about what is not in the table; 126 where there is none.
function M.run(options)
  local svd, message = require("lunavisor.svd").open(options.file)
  if not svd then return say.cannot("device import: %s", message) end
  if options.list then
    for _, one in ipairs(svd.list) do print(("0x%08x  %s"):format(one.base, one.name)) end
    return 0
  end
  local made
  made, message = svd:draft(options.peripheral)
  if not made then return say.cannot("device import: %s", message) end
  for _, one in ipairs(made.notes) do
    say.line("%s:%d: %s: %s", options.file, one.line, one.where, one.text)
  end
  return put(options, made.text)
end

return M
