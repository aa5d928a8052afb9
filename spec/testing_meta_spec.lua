-- SPDX-License-Identifier: MIT
-- The annotations of the testing kit name what it has, and nothing else.

local annotations = require "spec.support.annotations"
local helper = require "spec.support.helper"
local t = require "lunavisor.testing"

local text = helper.sh "cat lua/lunavisor/meta/testing.lua"

local names_of = annotations.functions
local function annotated(pattern) return annotations.named(text, pattern) end

describe("the annotations of lunavisor.testing", function()
  it("name every function of the module", function()
    assert.same(names_of(t), annotated "function testing%.([%w_]+)%(")
  end)

  for class, module in pairs { bus = "bus", guest = "guest", console = "console",
    screen = "screen", replay = "replay" } do
    it("name every method of a " .. class, function()
      local made = require("lunavisor.testing." .. module)
      assert.same(names_of(made.methods or made.class.__index),
        annotated("function " .. class .. ":([%w_]+)%("))
    end)
  end
end)
