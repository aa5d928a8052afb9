-- SPDX-License-Identifier: MIT
-- Measures figures under the engine that runs this: worker.lua SUBJECT ENGINE PATTERN BUILD. Prints
-- a line for each: name, unit, limit or -, samples. Runs below raw (raw.c), which reads its output.

local subject, engine, pattern, build = arg[1], arg[2], arg[3], arg[4]
package.path = arg[0]:match "^(.*)/" .. "/?.lua;" .. package.path
require("rounds").build = build

local function report(name, figure)
  local limit = figure.limit
  if type(limit) == "table" then limit = limit[engine] end
  local least = figure.least
  if type(least) == "table" then least = least[engine] end
  local bound = least and ">=" .. least or tostring(limit or "-")
  local fields = { name, figure.unit, bound }
  for _, sample in ipairs(figure.measure()) do fields[#fields + 1] = ("%.9g"):format(sample) end
  io.write(table.concat(fields, " "), "\n")
  io.flush()
end

for _, figure in ipairs(require(subject)) do
  local name = figure.engine and figure.name or figure.name .. "_" .. engine
  if (figure.engine or engine) == engine and name:find(pattern) then report(name, figure) end
end
