-- SPDX-License-Identifier: MIT
-- luna device describe: the datasheet of a device, from its table.

local device = require "lunavisor.device"
local opening = require "lunavisor.program.device.open"
local say = require "lunavisor.program.say"

local M = { about = "Print the datasheet that a device's table is." }

local EPILOG = [[
Examples:
  luna device describe shout.lua
  luna device describe shout.lua --format svg
  luna device describe uart16550

A device that ships goes by its name: luna device coverage --all names them.]]

function M.describe(command)
  command:argument("file", "The file that returns it, or the name of one that ships.")
  command:option("--format", "markdown, or svg: a figure of the bits of each register.",
    "markdown"):choices { "markdown", "svg" }
  command:epilog(EPILOG)
end

--- Status 0, 126 where there is no such device.
function M.run(options)
  local dev, message = opening.device(options.file)
  if not dev then return say.cannot("device describe: %s", message) end
  io.stdout:write(device.describe(dev, options.format))
  return 0
end

return M
