-- SPDX-License-Identifier: MIT
-- luna run: a Lua script, with the library where it looks for it; or a Linux program.

local say = require "lunavisor.program.say"
local watching = require "lunavisor.program.watching"

local M = { about = "Run a Lua script, or a static Linux program." }

local function processes() return require "lunavisor.program.process" end

local EPILOG = [[
Examples:
  luna run hello.lua one two
  luna run --accel soft --stats hello.lua
  luna run --trace trace.json hello.lua
  luna run --report run.html hello.lua
  luna run --seed 7 --set size=64 --set mode=long --json unit.lua
  luna run --linux --root . --timeout 5 cat

The script has what --set says in luna.arguments; --json prints, behind all that
it prints, one line with the table that it returns.]]

local function whole(text)
  local number = tonumber(text)
  if number and number % 1 == 0 and math.abs(number) < 2 ^ 53 then return number end
  return nil, "--seed: a whole number expected, got " .. text
end

function M.describe(command)
  command:argument("script", "The script, or - for the standard input; the program.")
  command:usage("Usage: luna run [OPTION...] SCRIPT [ARGUMENT...]\n"
    .. "       luna run --linux [OPTION...] PROGRAM [ARGUMENT...]")
  command:option("--accel", "What runs VMs whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
  command:option("--seed", "Of math.random; luna.arguments.seed."):argname "N":convert(whole)
  command:option("--set", "Gives the script luna.arguments.NAME; may be said again.")
    :argname "NAME=VALUE":count "*"
  command:flag("--json", "Print the table that the script returns, as a line of JSON.")
  watching.describe(command)
  command:option("--gdb", "Wait for gdb on this port of 127.0.0.1, 0 for a free one.")
    :argname "PORT":convert(require("lunavisor.program.values").port)
  processes().describe(command)
  command:epilog(EPILOG)
end

-- What the script has as luna.arguments. nil, message.
local function arguments_of(options)
  local set = {}
  for _, text in ipairs(options.set or {}) do
    local name, value = text:match "^([%a_][%w_]*)=(.*)$"
    if not name then
      return nil, ("--set: name=value expected, got %s"):format(text)
    end
    set[name] = tonumber(value) or value
  end
  if options.seed then
    set.seed = options.seed
    math.randomseed(options.seed)
  end
  return set
end

-- The script's frames alone.
local function traceback(message)
  return require("lunavisor.exit.trace").back(message)
end

-- One line of results, what the script was given and what it gave: for `put` if that is a function.
local function put_json(put, line, ok, result)
  if not ok then
    line.error = tostring(result):match "^[^\n]*"
  elseif type(result) == "table" then
    line.results = result
  elseif result ~= nil then
    say.line("the script has returned a %s: a table expected, whose fields are the results",
      require("lunavisor.class").describe(result))
  end
  if type(put) == "function" then return put(line) end
  print(require("lunavisor.program.json").encode(line))
end

local function run(chunk, set, options)
  local session, message = watching.begin(options, true)
  if not session then return say.cannot("%s", message) end
  local rest = options.rest or {}
  local began = options.json and require("lunavisor").clock()
  local ok, result = xpcall(function() return (chunk((table.unpack or unpack)(rest))) end,
    traceback)
  local outcome = watching.outcome(ok, result, 0, "The script has returned.")
  local line = options.json and { status = outcome.status, arguments = set,
    seconds = require("lunavisor").clock() - began }
  local status = session:finish(line, outcome)
  if line then put_json(options.json, line, ok, result) end
  io.stdout:flush()
  if ok then return status end
  say.line("%s", tostring(result))
  return outcome.status
end

--- Status 0 when the script has returned, 1 when it has raised, 130 at Ctrl-C; os.exit has its own.
--- options.json may be a function, which gets the table of the line.
function M.run(options)
  if options.accel then require("lunavisor.vm.accel").prefer(options.accel) end
  local wrong = processes().not_for(options)
  if wrong then
    return say.cannot("--%s %s --linux", wrong, options.linux and "is not for" or "needs")
  end
  if options.linux then return processes().run(options) end
  local name = options.script
  local chunk, problem = loadfile(name ~= "-" and name or nil)
  if not chunk then return say.cannot("%s", problem) end
  local set
  set, problem = arguments_of(options)
  if not set then return say.cannot("%s", problem) end
  if next(set) ~= nil then
    local arguments = require("lunavisor").arguments
    for key, value in pairs(set) do arguments[key] = value end
  end
  local given = { [-1] = "luna", [0] = name }
  for i, value in ipairs(options.rest or {}) do given[i] = value end
  _G.arg = given
  return run(chunk, set, options)
end

return M
