-- SPDX-License-Identifier: MIT
-- luna device: its own subcommands, one file each, which are made as those of the program.

local M = { about = "Begin, describe, look over or import devices of the kit." }

local NAMES = { "new", "describe", "coverage", "import" }

local EPILOG = [[
Examples:
  luna device new shout
  luna device describe shout.lua
  luna device coverage]]

local function command(name)
  return require("lunavisor.program.device." .. name)
end

function M.describe(parser)
  parser:command_target "device_command":epilog(EPILOG)
  for _, name in ipairs(NAMES) do
    command(name).describe(parser:command(name, command(name).about))
  end
end

--- The status of its subcommand.
function M.run(options)
  return command(options.device_command).run(options)
end

return M
