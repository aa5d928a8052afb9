-- SPDX-License-Identifier: MIT
-- luna report: luna run with --report, by a name of its own.

local M = { about = "Run a Lua script, and write a page of the run." }

local EPILOG = [[
Examples:
  luna report run.html hello.lua one two
  luna boot kernel.elf --timeout 10 --report boot.html

The page has all in it: the machine, what came when, the hottest devices and
addresses, what the guest has printed, where it stopped and why. It is that of
luna run --report; luna boot has the same option.]]

function M.describe(command)
  command:usage "Usage: luna report [--accel {kvm,soft,auto}] FILE SCRIPT [ARGUMENT...]"
  command:argument("file", "Where the page is written, as HTML."):target "report"
  command:argument("script", "The script, or - for the standard input.")
  command:option("--accel", "What runs VMs whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
  command:epilog(EPILOG)
end

--- The status of luna run; 126 where the page cannot be written.
function M.run(options)
  return require("lunavisor.program.run").run { script = options.script,
    rest = options.rest, accel = options.accel, report = options.report, words = options.words }
end

return M
