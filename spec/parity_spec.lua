-- SPDX-License-Identifier: MIT
-- Both engines have the same raw calls, the same public functions and classes, and the same u64.

local files = require "spec.support.files"
local helper = require "spec.support.helper"

local function has(engine)
  local _, status = helper.sh("command -v " .. engine)
  return status == 0
end

local function surface(engine)
  local script = files.read "spec/support/surface.lua"
  local output, lines = helper.child(script, { engine = engine }), {}
  for line in output:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

describe("another Lua", function()
  it("says which the library needs, and under busted what to type", function()
    local found, status = helper.sh "command -v lua5.1"
    if status ~= 0 then pending "lua5.1 is not installed" end
    local path = helper.file [[
      print((select(2, pcall(require, "lunavisor")):match "[^\n]*$"))
      for name in pairs(package.loaded) do
        if name:match "^lunavisor" then package.loaded[name] = nil end
      end
      package.loaded.busted = {}
      print((select(2, pcall(require, "lunavisor")):match "[^\n]*$"))
    ]]
    local output = helper.sh(helper.command(path, { engine = found }))
    helper.contains("lunavisor needs Lua 5.4 or LuaJIT, this is Lua 5.1\n", output .. "\n")
    helper.contains("this is Lua 5.1; say busted --lua=luajit or busted --lua=lua5.4", output)
    helper.clean()
  end)
end)

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
