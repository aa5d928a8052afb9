-- SPDX-License-Identifier: MIT
-- The Hypervisor framework's API against lunavisor.h: the program hvf.c measures, this collects its
-- samples. hvf_out and hvf_in find out about the instruction as programs for the framework do,
-- hvf_access lets the library tell.

local rounds = require "rounds"

local figures = {}
for _, name in ipairs { "map", "halt", "out", "in", "access" } do
  figures[#figures + 1] = { name = "hvf_" .. name, unit = "x", limit = 1.15, engine = "luajit",
    measure = function() return rounds.collect("hvf " .. name) end }
end
return figures
