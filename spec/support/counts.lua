-- SPDX-License-Identifier: MIT
-- An output handler for busted: names each test as it begins, says at once why one failed, then why
-- tests were left out, and ends with the line of counts that scripts/test reads.

-- The lines of a traceback that are about this project.
local function trace(text)
  local lines = {}
  for line in (text or ""):gmatch "[^\n]+" do
    if line:find("%.lua:%d+:") and not line:find("/busted/", 1, true) then
      lines[#lines + 1] = "  " .. line:gsub("^%s+", "")
    end
  end
  return #lines > 0 and "\n" .. table.concat(lines, "\n") or ""
end

local function text_of(message)
  if type(message) == "table" and message.message == nil and getmetatable(message) == nil then
    message = require("pl.pretty").write(message)
  end
  return message ~= nil and ": " .. tostring(message) or ""
end

local function place_of(entry)
  return entry.element.trace or entry.trace or {}
end

local function print_failure(entry)
  local where = place_of(entry)
  print(("FAIL %s:%s: %s%s%s"):format(where.short_src or "?", where.currentline or "?", entry.name,
    text_of(entry.message), trace(entry.trace and entry.trace.traceback)))
  io.stdout:flush()
end

-- Prints what was left out: a line for all tests of a file that have the same reason.
local function print_skipped(pendings)
  local groups = {}
  for _, entry in ipairs(pendings) do
    local where = place_of(entry)
    local file = where.short_src or "?"
    local key = file .. text_of(entry.message):gsub("%S+:%d+: ", "")
    local group = groups[key]
    if not group then
      group = { file = file, line = where.currentline or "?", name = entry.name, count = 0,
        why = text_of(entry.message) }
      groups[key], groups[#groups + 1] = group, group
    end
    group.count = group.count + 1
  end
  for _, group in ipairs(groups) do
    local others = group.count > 1 and (" and %d more"):format(group.count - 1) or ""
    print(("SKIP %s:%s: %s%s%s"):format(group.file, group.line, group.name, others, group.why))
  end
end

return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  -- A test that hangs has no other way to tell its name.
  busted.subscribe({ "test", "start" }, function(element)
    print(("begin %s:%s: %s"):format(element.trace.short_src, element.trace.currentline,
      element.name))
    io.stdout:flush()
    return nil, true
  end)

  local told = { failures = 0, errors = 0 }
  local function tell()
    for name, count in pairs(told) do
      for i = count + 1, #handler[name] do print_failure(handler[name][i]) end
      told[name] = #handler[name]
    end
    return nil, true
  end
  busted.subscribe({ "failure" }, tell)
  busted.subscribe({ "error" }, tell)

  busted.subscribe({ "suite", "end" }, function()
    tell()
    print_skipped(handler.pendings)
    print(("%d passed, %d failed, %d skipped"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount, handler.pendingsCount))
    io.stdout:flush()
    return nil, true
  end)
  return handler
end
