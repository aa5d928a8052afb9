-- SPDX-License-Identifier: MIT
-- What a program takes to its first output: luna boot against a loader in C and against QEMU, and
-- luna run against Lua alone (start.c); of luna as make installs it, whose modules are not compared
-- with their sources. The goal against the loader is 1.3.

local rounds = require "rounds"

local EMULATOR = "qemu-system-x86_64"
local luna = os.getenv "LUNA_INSTALLED" or arg[0]:match "^(.*)/[^/]*/" .. "/luna"
local figures = {}

local function add(name, unit, bounds, what)
  figures[#figures + 1] = { name = "start_" .. name, unit = unit, limit = bounds.limit,
    least = bounds.least, measure = function()
      return rounds.collect(("start %s %s %s"):format(what, luna, arg[-1]))
    end }
end

add("loader", "x", { limit = 5 }, "loader")
add("script", "ms", { limit = 30 }, "script")
if rounds.is_installed(EMULATOR) then
  add("emulator_kvm", "x", { least = 3 }, "emulator-kvm")
  add("emulator_tcg", "x", { least = { luajit = 3, lua54 = 2.5 } }, "emulator-tcg")
elseif jit then
  io.stderr:write("bench: start_emulator_* are skipped: ", EMULATOR, " is not installed\n")
end
return figures
