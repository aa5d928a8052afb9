-- SPDX-License-Identifier: MIT
-- luna test: specs of devices and guests under busted, on a Lua that has the library.

local say = require "lunavisor.program.say"

local M = { about = "Run specs under busted, with the testing kit." }

-- What they may be called.
local ENGINES = { ["lua5.4"] = "lua5.4 lua54 lua", luajit = "luajit" }

local EPILOG = [[
Examples:
  luna test
  luna test shout_spec.lua --engine luajit
  luna test devices --accel soft -- --filter capital

Without a name it is every *_spec.lua below this directory, or what a .busted
there says. A spec may require what is beside it. What is behind -- is busted's.

Status: 0, 1 where a test has failed or there is none, 126 without busted.]]

function M.describe(command)
  command:argument("path", "Directories of specs, and specs."):args "*"
  command:option("--engine", "lua5.4 or luajit; the one that runs luna without it.")
    :choices { "lua5.4", "luajit" }
  command:option("--accel", "What runs guests whose accel is not said: kvm, soft or auto.")
    :choices { "kvm", "soft", "auto" }
  command:epilog(EPILOG)
end

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Runs the program once more with other settings in its environment, which the programs that specs
-- start have too; its status.
local function again(options, settings)
  local words = { "env" }
  for _, setting in ipairs(settings) do words[#words + 1] = quote(setting) end
  words[#words + 1] = quote(os.getenv "LUNA_PROGRAM") .. " test"
  for _, path in ipairs(options.path) do words[#words + 1] = quote(path) end
  words[#words + 1] = "--"
  for _, word in ipairs(options.rest or {}) do words[#words + 1] = quote(word) end
  local status, how, code = os.execute(table.concat(words, " "))
  if type(status) ~= "number" then return how == "exit" and code or 128 + code end
  return status % 256 == 0 and status / 256 or 128 + status % 128 -- as wait has it
end

-- The directory of the file that a function is in, with a slash; nil where it is in none.
local function directory_of(info)
  local path = info and info.source:match "^@(.*)$"
  return path and (path:match "^.*/" or "./")
end

-- A searcher for what is beside the spec that asks for it, or beside the one that it is asked for.
local function beside(name)
  local level = 3 -- who calls require
  local own = directory_of(debug.getinfo(level, "S"))
  while own do
    local info = debug.getinfo(level, "S")
    if not info then return nil end
    if directory_of(info) == own and info.source:find "_spec%.lua$" then break end
    level = level + 1
  end
  if not own then return nil end
  local path = own .. name:gsub("%.", "/") .. ".lua"
  local file = io.open(path, "rb")
  if not file then return "\n\tno file '" .. path .. "'" end
  file:close()
  local chunk, problem = loadfile(path)
  return chunk or error(problem, 0), path
end

local function has_settings()
  local file = io.open(".busted", "rb")
  if file then file:close() end
  return file ~= nil
end

-- busted's own arguments.
local function arguments_of(options)
  local list = { [0] = "luna test" }
  for _, word in ipairs(options.rest or {}) do list[#list + 1] = word end
  for _, path in ipairs(options.path) do list[#list + 1] = path end
  if #options.path == 0 and not has_settings() then list[#list + 1] = "." end
  return list
end

-- A function that gives the number of tests that busted has begun.
local function counted()
  local core, count = require "busted.core", 0
  package.loaded["busted.core"] = function(...)
    local busted = core(...)
    local publish = busted.publish
    busted.publish = function(channel, ...)
      if channel[1] == "test" and channel[2] == "start" then count = count + 1 end
      return publish(channel, ...)
    end
    return busted
  end
  return function() return count end
end

--- Runs them; status 1 where one fails, or where there is none.
function M.run(options)
  local settings = {}
  if options.engine then settings[#settings + 1] = "LUNA_LUA=" .. ENGINES[options.engine] end
  if options.accel then settings[#settings + 1] = "LUNA_ACCEL=" .. options.accel end
  if #settings > 0 then return again(options, settings) end
  local ok, compatibility = pcall(require, "busted.compatibility")
  if not ok then
    return say.cannot("this Lua, %s, has no busted (Debian: apt-get install lua-busted; "
      .. "elsewhere: luarocks --lua-version=%s install busted)", rawget(_G, "jit") and "LuaJIT"
      or _VERSION, _VERSION:match "[%d.]+$")
  end
  -- busted raises in place of this on Lua 5.1, which LuaJIT is for it.
  compatibility.exit = function(code)
    io.stdout:flush()
    os.exit(code ~= 0 and 1 or 0, true)
  end
  local count = counted()
  local searchers = rawget(package, "searchers") or rawget(package, "loaders")
  table.insert(searchers, 2, beside)
  _G.arg = arguments_of(options)
  -- busted tells of itself by the name of the chunk that calls it.
  assert((loadstring or load)("require 'busted.runner' { standalone = false }", "@luna test"))()
  if count() > 0 then return 0 end
  say.line "there is no test in what was named, or none that the options of busted leave"
  return 1
end

return M
