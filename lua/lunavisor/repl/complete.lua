-- SPDX-License-Identifier: MIT
-- What a line can go on with: commands, names at hand, globals; of objects their methods and
-- fields, with registers, devices and symbols among them. Nothing is called to find out.

local class = require "lunavisor.class"
local commands = require "lunavisor.repl.command"
local dump = require "lunavisor.device.dump"
local names = require "lunavisor.repl.names"
local registers = require "lunavisor.vcpu.registers"
local sorted = require "lunavisor.text.sorted"
local symbols = require "lunavisor.text.symbols"
local views = require "lunavisor.vm.view"

local M = {}

local function add_all(set, more)
  for name, value in pairs(more or {}) do
    if type(name) == "string" then set[name] = value end
  end
end

-- ---- Of a value ----

local function add_device(set, device)
  local layout = dump.layout_of(device)
  if not layout then return end
  for _, part in ipairs { layout.getters, layout.methods, layout.lines } do add_all(set, part) end
end

-- The fields of a register of a device, and of a segment.
local function add_handle(set, value)
  local meta = getmetatable(value)
  add_all(set, rawget(meta, "fields"))
  if meta == registers.group then add_all(set, rawget(value, "fields")) end
end

local function of_table(value)
  local set = {}
  local own, methods = class.names(value)
  add_all(set, own)
  add_all(set, methods)
  for _, name in ipairs(views.names(value) or {}) do set[name] = true end
  if getmetatable(value) == symbols.class then
    for _, symbol in ipairs(value:list()) do set[symbol.name] = true end
  end
  if getmetatable(value) then add_handle(set, value) end
  if not own then add_all(set, value) end
  add_device(set, value)
  return set
end

--- The names of what can be behind a value and a dot; their values, where those are known.
local function of(value)
  if type(value) == "string" then return string end
  return type(value) == "table" and of_table(value) or {}
end

-- ---- Of a place in a line ----

local function at_hand(session, first)
  local set = {}
  add_all(set, _G)
  add_all(set, names.AT_HAND)
  add_all(set, session.given)
  local vm, cpu = session:vm(), session:cpu()
  if not first then -- an address, perhaps
    if cpu then add_all(set, registers.names()) end
    for _, symbol in ipairs(vm and vm[1] and vm.symbols:list() or {}) do set[symbol.name] = true end
    for _, name in ipairs(vm and vm[1] and views.names(vm.devices) or {}) do set[name] = true end
  else
    add_all(set, commands.by_name)
  end
  return set
end

-- The value of "vm.devices.com1": a path of names, each looked up without a call.
local function follow(session, path)
  local value, first = nil, true
  for name in path:gmatch "[%a_][%w_]*" do
    local ok, found
    if first then
      ok, found = pcall(function() return session.env[name] end)
    else
      ok, found = pcall(function() return value[name] end)
    end
    if not ok then return nil end
    value, first = found, false
  end
  return value
end

--- What the word at the end of `before` can be: a list of whole words, in order.
function M.words(session, before)
  local word = before:match "[%w_%.:]*$"
  local path, dot, last = word:match "^(.*)([%.:])([%w_]*)$"
  local set
  if path then
    local ok, found = pcall(of, follow(session, path))
    set = ok and found or {}
  else
    path, dot, last = "", "", word
    set = at_hand(session, not before:sub(1, #before - #word):find "%S")
  end
  local list = {}
  for _, name in ipairs(sorted(set)) do
    local fits = name:sub(1, #last) == last and not class.is_probe(name)
    if fits and (dot ~= ":" or type(set[name]) == "function") then
      list[#list + 1] = path .. dot .. name
    end
  end
  return list
end

return M
