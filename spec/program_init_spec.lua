-- SPDX-License-Identifier: MIT
-- luna init: what it writes for editors and busted, that the paths in it lead somewhere, and that
-- it writes over nothing.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local json = require "dkjson"
local program = require "spec.support.program"
local contains = helper.contains

local directory

local function ends(...) return program.ends(directory, ...) end

local function read(name) return files.read(directory .. "/" .. name) end

local function write(name, text) files.write(directory .. "/" .. name, text) end

describe("luna init", function()
  before_each(function() directory = helper.sh "mktemp -d" end)
  after_each(function() helper.sh("rm -r " .. directory) end)

  it("writes what lua-language-server has to know", function()
    assert.equal("./.luarc.json\n./.busted", ends(0, "", "init"))
    local settings = assert(json.decode(read ".luarc.json"))
    assert.equal(helper.jit and "LuaJIT" or "Lua 5.4", settings["runtime.version"])
    assert.is_false(settings["workspace.checkThirdParty"])
    assert.equal(1, #settings["workspace.library"])
    local library = settings["workspace.library"][1]
    assert.equal("/", library:sub(1, 1))
    contains("---@meta lunavisor\n", files.read(library .. "/lunavisor.lua"))
    for _, module in ipairs { "device", "testing" } do
      local text = files.read(("%s/%s.lua"):format(library, module))
      contains(("---@meta lunavisor.%s\n"):format(module), text)
      assert.matches("\nreturn " .. module .. "\n$", text)
    end
  end)

  it("names the globals that specs have", function()
    ends(0, "", "init")
    local lines = { "it('has them', function()" }
    for _, name in ipairs(json.decode(read ".luarc.json")["diagnostics.globals"]) do
      if name ~= "jit" then
        lines[#lines + 1] = ("assert.is_not_nil(%s, %q)"):format(name, name)
      end
    end
    assert.is_true(#lines > 10)
    write("all_spec.lua", table.concat(lines, "\n") .. "\nend)")
    ends(0, "1 success / 0 failures", "test all_spec.lua")
    write("all_spec.lua", "it('has none', function() assert.is_not_nil(nonsense) end)")
    ends(1, "0 successes", "test all_spec.lua")
  end)

  it("lets plain busted find the library", function()
    ends(0, "", "init")
    ends(0, "lamp_spec.lua", "device new lamp")
    for _, engine in ipairs { "lua5.4", "luajit" } do
      local output = helper.sh(("cd %s; env -u LUA_PATH -u LUA_CPATH -u LUNAVISOR_LIBRARY busted "
        .. "--lua=%s"):format(directory, engine))
      contains(" / 0 failures / 0 errors", output)
      assert.is_true(tonumber(output:match "(%d+) successes") > 10, output)
    end
    ends(0, " / 0 failures / 0 errors", "test")
  end)

  it("is for a directory of another name too, and may be said again", function()
    helper.sh("mkdir " .. directory .. "/devices")
    assert.equal("devices/.luarc.json\ndevices/.busted", ends(0, "", "init devices/"))
    assert.equal("all is there", ends(0, "", "init devices"))
    helper.sh(("rm %s/devices/.busted"):format(directory))
    assert.equal("devices/.busted", ends(0, "", "init devices"))
    ends(126, "luna: init: none/.luarc.json: No such file", "init none")
  end)

  it("leaves what is somebody else's as it is, and says what belongs into it", function()
    write(".busted", "return {}")
    local output = ends(126, "luna: init: ./.busted is there already, and is left as it is. This "
      .. "belongs into it:\n-- By luna init", "init")
    contains("lpath = ", output)
    assert.equal("return {}", read ".busted")
    assert.is_nil((io.open(directory .. "/.luarc.json")))
    write(".luarc.json", "{}")
    contains('"workspace.library": ["/', ends(126, "./.luarc.json is there already", "init"))
    assert.equal("{}", read ".luarc.json")
  end)

  it("has a help that fits 80 columns, whose examples do what they say", function()
    helper.sh("mkdir " .. directory .. "/devices")
    local text, count = ends(0, "Usage: luna init", "init --help"), 0
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    for example in text:gmatch "\n  luna ([^\n]+)" do
      ends(0, "", example)
      count = count + 1
    end
    assert.equal(2, count)
  end)
end)
