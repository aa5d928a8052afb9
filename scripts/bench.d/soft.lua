-- SPDX-License-Identifier: MIT
-- The software CPU: the program soft.c measures, this collects its samples. They are absolute and
-- of this machine, so no figure has a limit.

local rounds = require "rounds"

local figures = {}
for _, what in ipairs {
  { "alu 64", "M/s" }, { "alu 32", "M/s" }, { "alu 16", "M/s" }, { "memory 64", "M/s" },
  { "memory 32", "M/s" }, { "memory 16", "M/s" }, { "out", "ns" }, { "vector", "ns" },
  { "store", "ns" }, { "life", "ns" },
} do
  local name = what[1]:gsub(" ", "_")
  figures[#figures + 1] = { name = "soft_" .. name, unit = what[2], engine = "luajit",
    measure = function() return rounds.collect("soft " .. what[1]) end }
end
return figures
