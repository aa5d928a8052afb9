-- SPDX-License-Identifier: MIT
-- Both engines have the same raw calls, the same public functions and classes, and the same u64.

local helper = require "spec.support.helper"

local function has(engine)
  local _, status = helper.sh("command -v " .. engine)
  return status == 0
end

local function surface(engine)
  local file = assert(io.open("spec/support/surface.lua"))
  local script = file:read "*a"
  file:close()
  local output, lines = helper.child(script, { engine = engine }), {}
  for line in output:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

describe("both engines", function()
  after_each(helper.clean)

  it("have the same functions, classes and u64 results", function()
    if not has(helper.other_engine) then pending(helper.other_engine .. " is not installed") end
    local here, there = surface(helper.engine), surface(helper.other_engine)
    assert.truthy(#here > 200, #here)
    assert.matches("^raw: .*answer function, .*buffer_compare function, ", here[1])
    for i, line in ipairs(here) do assert.equal(line, there[i]) end
    assert.equal(#here, #there)
  end)

  it("have the same version", function()
    assert.equal("lunavisor 0.1.0", require("lunavisor")._VERSION)
  end)
end)
