-- SPDX-License-Identifier: MIT
-- A unit of a sweep: one run of the script, and the line of results that tells of it. The line
-- stands behind what the script has printed, and begins with a record separator (RFC 7464).

local encode = require("lunavisor.program.json").encode
local plan = require "lunavisor.sweep.plan"
local say = require "lunavisor.program.say"

local M = { MARK = "\30" }

local function host_name()
  local file = io.open "/proc/sys/kernel/hostname"
  local name = file and file:read "*l"
  if file then file:close() end
  return name or "?"
end

local function named(unit)
  local arguments = {}
  for _, text in ipairs(unit.set) do
    local name, value = text:match "^(.-)=(.*)$"
    arguments[name] = tonumber(value) or value
  end
  if unit.seed then arguments.seed = tonumber(unit.seed) end
  return arguments
end

-- Why the script that is here is not the one to run; nil where it is.
local function why_not(unit)
  local text, problem = plan.read_file(unit.script)
  if not text then return problem end
  if plan.sum(text) ~= unit.sum then
    return ("%s is not the script that the sweep began with"):format(unit.script)
  end
end

-- Runs the script with os.exit caught: its line is put before the end. `put` gets the line, and
-- gives the status to leave with.
local function run_script(unit, put)
  local leave, clock = os.exit, require("lunavisor").clock
  local began, done = clock(), false
  local function put_once(line)
    if done then return end
    done = true
    return put(line)
  end
  rawset(os, "exit", function(code, ...)
    local status = code == false and 1 or tonumber(code) or 0
    return leave(put_once { status = status, arguments = named(unit),
      seconds = clock() - began,
      error = status ~= 0 and ("the script called os.exit(%d)"):format(status) or nil }, ...)
  end)
  local status = require("lunavisor.program.run").run { script = unit.script, accel = unit.accel,
    set = unit.set, seed = tonumber(unit.seed), rest = unit.rest,
    json = put_once }
  rawset(os, "exit", leave)
  put_once { status = status, arguments = named(unit), error = "the script could not be run" }
end

--- Runs a unit, as plan.read_word gives it, and prints its line. Returns the status of the script.
--- `marked`: the line is marked, and what the line says is no longer the status, which is 0.
function M.run(unit, marked)
  local status = say.CANNOT
  local function put(line)
    line.unit, line.host, status = unit.unit, unit.host and host_name() or nil, line.status
    -- It has not ended by itself, and is not done.
    if status == say.INTERRUPTED and line.error:find("interrupted!", 1, true) then return status end
    io.stdout:write(marked and M.MARK or "", encode(line), "\n")
    io.stdout:flush()
    if status ~= 0 then
      say.line("unit %d (%s) has failed: %s", unit.unit, table.concat(unit.set, ", "),
        line.error or "status " .. status)
    end
    if marked then status = 0 end
    return status
  end
  local problem = why_not(unit)
  if problem then
    put { status = say.CANNOT, arguments = named(unit), error = problem }
  else
    run_script(unit, put)
  end
  return status
end

return M
