-- SPDX-License-Identifier: MIT
-- Every device that ships: the tests that its table gives, and random accesses. A file that comes
-- to the folder is tested without being named here.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local support = require "spec.support.device"
local t = require "lunavisor.testing"

-- What they are made with, where that is not nothing: so that time stands, and that no function of
-- the table's gives a register another value than the table says.
local OPTIONS = { mc146818 = { time = 0 }, uart16550 = { carrier = false } }

local classes, names = {}, {}
for file in helper.sh("ls lua/lunavisor/device/models"):gmatch "([%w_]+)%.lua" do
  local kind = require("lunavisor.device.models." .. file)
  if device.is(kind) == "class" then
    names[#names + 1], classes[file] = file, kind
  end
end

-- The options and methods that the annotations have of a class.
local function annotated(meta, name)
  local list, inside = {}, false
  for line in meta:gmatch "[^\n]+" do
    local class = line:match "^%-%-%-@class luna%.([%w_]+)"
    if class then inside = class == name .. "_options" end
    local field = inside and line:match "^%-%-%-@field ([%w_]+)"
    if field then list[#list + 1] = "option " .. field end
    local method = line:match("^function " .. name .. ":([%w_]+)%(")
    if method then list[#list + 1] = "method " .. method end
  end
  table.sort(list)
  return list
end

describe("the devices that ship", function()
  it("are called as their files", function()
    assert.is_true(#names >= 10)
    for _, name in ipairs(names) do assert.equal(name, classes[name].name) end
  end)

  it("have options here that they have", function()
    for name in pairs(OPTIONS) do assert.truthy(classes[name], name) end
  end)

  it("are in the manual, with all that they have", function()
    local page = helper.sh "cat lua/manual/models.md"
    for _, name in ipairs(names) do
      local row = page:match("\n(| `" .. name .. "`:[^\n]*)") or ""
      local told = {}
      for one in row:gmatch "`([%w_]+)`" do told[one] = true end
      for stem, from, to in row:gmatch "`(%l+)(%d)` to `%l+(%d)`" do
        for i = from, to do told[("%s%d"):format(stem, i)] = true end
      end
      local layout, spec = device.layout(classes[name]), classes[name].layout.spec
      local function check(what, one)
        if type(one) == "string" and not told[one] then
          error(("models.md does not tell the %s %s of %s"):format(what, one, name), 0)
        end
      end
      for _, region in ipairs(layout.regions) do
        if region.size > 0 then check("region", region.name) end
      end
      for _, line in ipairs(layout.lines) do check("line", line.name) end
      for _, input in ipairs(layout.inputs) do check("input", input) end
      for option in pairs(spec.options or {}) do check("option", option) end
      for method in pairs(spec.methods or {}) do check("method", method) end
    end
  end)

  it("are annotated, with their options and methods", function()
    local meta = helper.sh "cat lua/lunavisor/meta/models.lua"
    for _, name in ipairs(names) do
      local spec, own = classes[name].layout.spec, {}
      for option in pairs(spec.options or {}) do
        own[#own + 1] = "option " .. option
      end
      for method in pairs(spec.methods or {}) do own[#own + 1] = "method " .. method end
      table.sort(own)
      assert.same(own, annotated(meta, name), name)
    end
  end)

  it("have what they do not model in the list of that", function()
    local listed = {}
    for _, entry in ipairs(device.coverage()) do
      listed[entry.device .. "." .. entry.name] = true
    end
    local count = 0
    for _, name in ipairs(names) do
      for _, register in ipairs(device.layout(classes[name]).registers) do
        local function check(about, what)
          if not about.todo then return end
          count = count + 1
          assert.is_true(listed[name .. "." .. what], name .. "." .. what)
        end
        check(register, register.name)
        for _, field in ipairs(register.fields) do
          check(field, register.name .. "." .. field.name)
        end
      end
    end
    assert.is_true(count > 0)
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
