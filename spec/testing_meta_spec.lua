-- SPDX-License-Identifier: MIT
-- The annotations of the testing kit name what it has, and nothing else.

local helper = require "spec.support.helper"
local t = require "lunavisor.testing"

local text = helper.sh "cat lua/lunavisor/meta/testing.lua"

local function annotated(pattern)
  local names = {}
  for name in text:gmatch(pattern) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function names_of(set)
  local names = {}
  for name, value in pairs(set) do
    if type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

describe("the annotations of lunavisor.testing", function()
  it("name every function of the module", function()
    assert.same(names_of(t), annotated "function testing%.([%w_]+)%(")
  end)

  for class, module in pairs { bus = "bus", guest = "guest", console = "console",
    screen = "screen" } do
    it("name every method of a " .. class, function()
      local made = require("lunavisor.testing." .. module)
      assert.same(names_of(made.methods or made.class.__index),
        annotated("function " .. class .. ":([%w_]+)%("))
    end)
  end
end)
