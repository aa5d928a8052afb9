-- SPDX-License-Identifier: MIT
-- What luna.process takes: its arguments, checked, with errors at the script's line.

local accels = require "lunavisor.vm.accel"
local chance = require "lunavisor.testing.chance"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local loads = require "lunavisor.load.option"
local raw = require "lunavisor.binding.backend"
local sorted = require "lunavisor.text.sorted"

local M = {}

local LEAST = 2 ^ 20

local known = {
  args = true, env = true, stdin = true, stdout = true, stderr = true, root = true, files = true,
  memory = true, terminal = true, clock = true, seed = true, log = true, trace = true,
  accel = true, cpuid = true,
}

-- For checks: how many calls above one that is made here the last call of the library is.
local function depth()
  return class.outside() - 2
end

local function fail(form, ...)
  error(("luna.process: " .. form):format(...), class.outside())
end

local function check_table(what, value)
  if type(value) ~= "table" or getmetatable(value) ~= nil then
    fail("%s: a table expected, got %s", what, class.describe(value))
  end
end

local function text_of(what, value)
  value = check.name("luna.process: " .. what, value, "a string", depth())
  return value
end

local function args_of(value)
  check_table("args", value)
  local list = {}
  for i, one in ipairs(value) do list[i] = text_of(("args: %d"):format(i), one) end
  return list
end

-- The environment as a list, in the order of its names.
local function env_of(value)
  check_table("env", value)
  local list = {}
  for name in pairs(value) do
    if type(name) ~= "string" or name:find "[=%z]" then
      fail("env: names without '=' expected, got %s", tostring(name))
    end
  end
  for _, name in ipairs(sorted(value)) do
    list[#list + 1] = name .. "=" .. text_of("env: " .. name, value[name])
  end
  return list
end

local function function_of(what, value)
  value = check.callable("luna.process: " .. what, value, depth())
  return value
end

local function stdin_of(value)
  if type(value) ~= "string" then return (function_of("stdin", value)) end
  local rest = value
  return function()
    local text = rest
    rest = ""
    return text
  end
end

local function files_of(value)
  check_table("files", value)
  local found = {}
  for path, content in pairs(value) do
    if type(path) ~= "string" or path:sub(1, 1) ~= "/" then
      fail("files: paths that begin with '/' expected, got %s", tostring(path))
    end
    found[path] = type(content) == "string" and content or function_of("files: " .. path, content)
  end
  return found
end

local function memory_of(value)
  local size = check.size("luna.process: memory", value, depth())
  if size < LEAST or size % 0x1000 ~= 0 then
    fail("memory: a multiple of 4K, from 1M on, expected, got %.0f", size)
  end
  return size
end

local checks = {
  args = args_of, env = env_of, stdin = stdin_of, files = files_of, memory = memory_of,
  root = function(value) return (text_of("root", value)) end,
  terminal = function(value) return (check.flag("luna.process: terminal", value, depth())) end,
  seed = function(value) return (check.whole("luna.process: seed", value, 0, nil, depth())) end,
}
function checks.accel(value)
  accels.number("luna.process: accel", value, depth())
  return value
end

function checks.cpuid(value)
  if type(value) ~= "function" and type(value) ~= "table" then
    fail("cpuid: a function or a list of answers expected, got %s", class.describe(value))
  end
  return value
end

for _, name in ipairs { "stdout", "stderr", "clock", "log", "trace" } do
  checks[name] = function(value) return (function_of(name, value)) end
end

-- A writer to a stream of the script.
local function to_stream(name)
  return function(text)
    io[name]:write(text)
    io[name]:flush()
  end
end

local function clock()
  return raw.clock() / 1e9
end

-- A function(count) that gives random bytes.
local function bytes_by(random)
  return function(count)
    local bytes = {}
    for i = 1, count do bytes[i] = string.char(random(256)) end
    return table.concat(bytes)
  end
end

--- What says where the bytes of a program are.
function M.source(value)
  local source = loads.source("luna.process: image", value)
  return source
end

--- The options with every value checked, and what stands for those that are nil.
function M.options(options)
  options = check.options("luna.process", options, known, depth())
  local made = {
    args = {}, env = {}, memory = 2 ^ 28, terminal = false, clock = clock, seed = 1,
    stdout = to_stream "stdout", stderr = to_stream "stderr", trace = false,
    log = function(text) io.stderr:write("luna: ", text, "\n") end,
  }
  for name, value in pairs(options) do
    made[name] = checks[name](value)
  end
  made.random = bytes_by(chance.new(made.seed))
  made.epoch = made.clock == clock and os.time() - clock() or 0 -- of the script's, it is 1970
  return made
end

return M
