-- SPDX-License-Identifier: MIT
-- The Hypervisor framework's API against lunavisor.h: the program hvf.c measures, this collects its
-- samples. hvf_out and hvf_in find out about the instruction as programs for the framework do,
-- hvf_access lets the library tell. hvf_round is the run alone; hvf_write a violation of a write
-- whose instruction is found, against one that is only completed. hvf_soft is an OUT on the
-- software CPU with all that a program does for it, in nanoseconds.

local rounds = require "rounds"

local limits = { round = 1.05, write = 1.3 }
local figures = {}
local function add(name, unit, limit)
  figures[#figures + 1] = { name = "hvf_" .. name, unit = unit, engine = "luajit", limit = limit,
    measure = function() return rounds.collect("hvf " .. name) end }
end
for _, name in ipairs { "map", "halt", "out", "in", "access", "round", "write" } do
  add(name, "x", limits[name] or 1.15)
end
add("soft", "ns", 150)
return figures
