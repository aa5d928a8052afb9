-- SPDX-License-Identifier: MIT
-- The annotations in lua/lunavisor/meta name what the classes have, and nothing else.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function read_all(pattern)
  local texts = {}
  for path in helper.sh("ls " .. pattern):gmatch "[^\n]+" do texts[#texts + 1] = read(path) end
  return table.concat(texts, "\n")
end

local meta = read_all "lua/lunavisor/meta/*.lua"

local function annotated(pattern)
  local names = {}
  for name in meta:gmatch(pattern) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function functions_of(class)
  local names = {}
  for name, value in pairs(class) do
    if type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- vCPUs have registers as fields and hide their methods: those that the source defines count.
local function methods_in(pattern)
  local names = {}
  for name in read_all(pattern):gmatch "\n *function methods%.([%w_]+)" do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

describe("the annotations", function()
  it("name every function of the module", function()
    assert.same(functions_of(luna), annotated "function luna%.([%w_]+)%(")
  end)

  it("name every call of the Hypervisor framework", function()
    assert.same(functions_of(require "lunavisor.hv"), annotated "function hv%.([%w_]+)%(")
  end)

  it("name the arguments of those calls", function()
    local calls, found = require("lunavisor.hv.call").calls, {}
    for name, list in meta:gmatch "function hv%.([%w_]+)%((.-)%)" do found[name] = list end
    for name, arguments in pairs(calls) do
      assert.equal(table.concat(arguments, ", "), found[name], name)
    end
  end)

  for class, module in pairs { buffer = "buffer", space = "space", vm = "vm" } do
    it("name every method of a " .. class, function()
      local methods = require("lunavisor." .. module).class.__index
      assert.same(functions_of(methods), annotated("function " .. class .. ":([%w_]+)%("))
    end)
  end

  it("name every method of a vcpu", function()
    assert.same(methods_in "lua/lunavisor/vcpu*.lua", annotated "function vcpu:([%w_]+)%(")
  end)

  it("are not to be loaded", function()
    assert.has_error(function() require "lunavisor.meta.lunavisor" end)
  end)
end)
