-- SPDX-License-Identifier: MIT
-- What a program takes to its first output: luna boot against a loader in C and against QEMU, and
-- luna run against Lua alone (start.c); of luna as make installs it, whose modules are not compared
-- with their sources. The goal against the loader is 1.3, on a machine that does nothing else. The
-- loader waits for KVM more than it works, since Linux 6.18, and the core does not: by what luna
-- works there is a second figure, against a loader that does not wait. What it takes at the least
-- is a shell and a Lua, which is nearly the time of that loader.

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

add("loader", "x", { limit = { luajit = 1.5, lua54 = 1.6 } }, "loader")
add("loader_first", "x", { limit = 8 }, "loader-first")
add("script", "ms", { limit = 30 }, "script")
if rounds.is_installed(EMULATOR) then
  add("emulator_kvm", "x", { least = 3 }, "emulator-kvm")
  add("emulator_tcg", "x", { least = { luajit = 3, lua54 = 2.8 } }, "emulator-tcg")
elseif jit then
  io.stderr:write("bench: start_emulator_* are skipped: ", EMULATOR, " is not installed\n")
end
return figures
