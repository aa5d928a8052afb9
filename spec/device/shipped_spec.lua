-- SPDX-License-Identifier: MIT
-- Every device that ships: the tests that its table gives, and random accesses. A file that comes
-- to the folder is tested without being named here.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local support = require "spec.support.device"
local t = require "lunavisor.testing"

-- What they are made with, where that is not nothing: so that time stands, and that no function of
-- the table's gives a register another value than the table says.
local OPTIONS = { i8042 = { config = 0 }, mc146818 = { time = 0 }, uart16550 = { carrier = false } }

local classes, names = {}, {}
for file in helper.sh("ls lua/lunavisor/device/models"):gmatch "([%w_]+)%.lua" do
  local kind = require("lunavisor.device.models." .. file)
  if device.is(kind) == "class" then
    names[#names + 1], classes[file] = file, kind
  end
end

describe("the devices that ship", function()
  it("are called as their files", function()
    assert.is_true(#names >= 10)
    for _, name in ipairs(names) do assert.equal(name, classes[name].name) end
  end)

  it("have options here that they have", function()
    for name in pairs(OPTIONS) do assert.truthy(classes[name], name) end
  end)

  for _, name in ipairs(names) do
    describe("(" .. name .. ")", function()
      t.registers(classes[name], { options = OPTIONS[name] })
    end)
    support.describe(name, function(log)
      local options = { log = log }
      for key, value in pairs(OPTIONS[name] or {}) do options[key] = value end
      return classes[name](options)
    end)
  end
end)
