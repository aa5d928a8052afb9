-- SPDX-License-Identifier: MIT
-- Prints what the engine that runs it has of the library: names and types of the raw calls, of the
-- public table and of the classes, and the results of u64 for every pair of edge values.

local luna = require "lunavisor"

local function list(title, names)
  local lines = {}
  for name, value in pairs(names) do
    if type(name) == "string" then lines[#lines + 1] = name .. " " .. type(value) end
  end
  table.sort(lines)
  print(title .. ": " .. table.concat(lines, ", "))
end

list("raw", require "lunavisor.binding.backend")
list("luna", luna)
list("u64", luna.u64)
for _, name in ipairs {
  "vm.vm", "memory.space", "memory.buffer", "vcpu.vcpu", "exit.record",
} do
  local class = require("lunavisor." .. name).class
  list(name, class)
  if type(class.__index) == "table" then list(name .. " methods", class.__index) end
end

local u64, hex = luna.u64, luna.hex
local edges = {
  0, 1, 3, 2 ^ 31, 2 ^ 32 - 1, 2 ^ 32, 2 ^ 53 - 1, 2 ^ 53, -1, -2 ^ 31, -2 ^ 53,
  u64 "0x7fffffffffffffff", u64 "0x8000000000000000", u64 "0xfffffffffffffffe",
  u64 "0x20000000000001", u64(0xdeadbeef, 0xcafebabe),
}

local function shown(ok, value)
  if not ok then return "error" end
  if type(value) == "boolean" then return tostring(value) end
  return hex(value)
end

for i, a in ipairs(edges) do
  print(i, hex(a), u64.key(a), shown(pcall(u64.tonumber, a)), shown(pcall(u64.bnot, a)))
  for j, b in ipairs(edges) do
    local results = {}
    for _, name in ipairs { "lt", "le", "div", "mod", "band", "bor", "bxor" } do
      results[#results + 1] = shown(pcall(u64[name], a, b))
    end
    a, b = u64(a), u64(b)
    print(i, j, a == b, hex(a + b), hex(a - b), hex(a * b), table.concat(results, " "))
  end
  for n = 0, 63, 9 do print(i, n, hex(u64.lshift(a, n)), hex(u64.rshift(a, n))) end
end
