-- SPDX-License-Identifier: MIT
-- An output handler for busted: names each test as it begins, says why tests failed or were left
-- out, and ends with the line of counts that scripts/test reads.

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

local function describe(kind, entry)
  local where = entry.element.trace or entry.trace or {}
  local message = entry.message
  if type(message) == "table" and message.message == nil and getmetatable(message) == nil then
    message = require("pl.pretty").write(message)
  end
  return ("%s %s:%s: %s%s"):format(kind, where.short_src or "?", where.currentline or "?",
    entry.name, message ~= nil and ": " .. tostring(message) or "")
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

  busted.subscribe({ "suite", "end" }, function()
    for _, entry in ipairs(handler.pendings) do
      print(describe("SKIP", entry))
    end
    for _, list in ipairs { handler.failures, handler.errors } do
      for _, entry in ipairs(list) do
        print(describe("FAIL", entry) .. trace(entry.trace and entry.trace.traceback))
      end
    end
    print(("%d passed, %d failed, %d skipped"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount, handler.pendingsCount))
    io.stdout:flush()
    return nil, true
  end)
  return handler
end
