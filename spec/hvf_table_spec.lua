-- SPDX-License-Identifier: MIT
-- The table of the Hypervisor framework's functions in core/hvf/README.md: it has each function of
-- the headers, the library exports them and nothing else, and what is said of each has a form that
-- can be relied on.

local helper = require "spec.support.helper"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- The functions that the headers declare, without comments' mentions of others.
local function declared()
  local names = {}
  for path in helper.sh("ls core/include/Hypervisor/*.h"):gmatch "[^\n]+" do
    local text = read(path):gsub("/%*.-%*/", "")
    for name in text:gmatch "HV_API%s[^;(]-(hv_[%w_]+)%(" do names[name] = true end
  end
  return names
end

local readme = read "core/hvf/README.md"

local function rows()
  local states, repeated = {}, {}
  for name, state in readme:gmatch "\n| `(hv_[%w_]+)` | ([^|]+) |" do
    if states[name] then repeated[#repeated + 1] = name end
    states[name] = state
  end
  return states, repeated
end

describe("the table of the Hypervisor framework's functions", function()
  it("has each function of the headers once", function()
    local states, repeated = rows()
    local ours = readme:match "\nOf our own[^\n]+"
    for name in ours:gmatch "`(hv_ext_[%w_]+)`" do states[name] = "ours" end
    assert.same(sorted(declared()), sorted(states))
    assert.same({}, repeated)
    assert.truthy(#sorted(states) > 30)
  end)

  it("says of each what can be expected", function()
    local unclear = {}
    for name, state in pairs(rows()) do
      if not (state:match "^exact$" or state:match "^exact[,;:] ." or state:match "^differs: ."
        or state:match "^`HV_UNSUPPORTED`: .") then
        unclear[#unclear + 1] = name .. ": " .. state
      end
    end
    assert.same({}, unclear)
  end)

  it("refers only to functions that are there", function()
    local states = rows()
    for _, state in pairs(states) do
      for other in state:gmatch "as `(hv_[%w_]+)`" do assert.truthy(states[other], other) end
    end
  end)

  it("is of what the library exports", function()
    local library = (os.getenv "LUNAVISOR_LIBRARY" or "build/x"):match "^(.*)/" ..
      "/libHypervisor.so"
    local exported = {}
    for name in helper.sh("nm -D --defined-only " .. library):gmatch " T ([%w_]+)" do
      exported[name] = true
    end
    assert.same(sorted(declared()), sorted(exported))
  end)
end)
