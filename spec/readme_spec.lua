-- SPDX-License-Identifier: MIT
-- The README's first script does what it says; the other pieces of Lua in it are Lua.

local helper = require "spec.support.helper"

local file = assert(io.open("README.md", "rb"))
local readme = file:read "*a"
file:close()

local blocks = {}
for block in readme:gmatch "\n```lua\n(.-)\n```" do blocks[#blocks + 1] = block end

describe("the README", function()
  it("has pieces of Lua that both engines can parse", function()
    assert.is_true(#blocks > 5)
    for _, block in ipairs(blocks) do
      -- statements stand side by side for the reader; a bare call result is given a name
      local source = block:gsub("\n(%a[%w_]*[:.][%w_:.]+%b())", "\n;%1")
      assert((loadstring or load)(source), block)
    end
  end)
end)

helper.kvm("the README's first script", function()
  it("prints what it says", function()
    assert.equal("A\nhlt\t0x1007", helper.child(blocks[1]))
  end)
end)
