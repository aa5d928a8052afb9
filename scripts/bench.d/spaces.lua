-- SPDX-License-Identifier: MIT
-- Maps of spaces and moves between them, where the work is the C core's: the programs spaces.c and
-- moves.c measure, this collects their samples.

local rounds = require "rounds"

local function figure(name, unit, limit, command)
  return { name = name, unit = unit, limit = limit, engine = "luajit",
    measure = function() return rounds.collect(command) end }
end

local figures = {}
for _, slots in ipairs { 1, 100, 1000, 10000, 32000 } do
  figures[#figures + 1] = figure("map_unmap_" .. slots, "x", 1.15, "spaces map_unmap " .. slots)
end
for _, more in ipairs {
  figure("protect", "x", 1.10, "spaces protect"),
  figure("remap", "x", 1.10, "spaces remap"),
  figure("find_32000", "ns", 150, "spaces find 32000"),
  figure("map_cost_100", "ns", 600, "spaces map_cost 100"),
  figure("map_cost_32000", "ns", 1500, "spaces map_cost 32000"),
  figure("move_full", "x", 0.65, "moves full"),
  figure("move_registers", "x", 1.20, "moves registers"),
} do
  figures[#figures + 1] = more
end
return figures
