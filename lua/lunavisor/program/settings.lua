-- SPDX-License-Identifier: MIT
-- luna init: what an editor and plain busted have to know, as files of a directory.

local files = require "lunavisor.program.file"
local json = require "lunavisor.program.json"
local say = require "lunavisor.program.say"

local M = { about = "Write the settings for an editor and for busted." }

local EPILOG = [[
Examples:
  luna init
  luna init devices

It writes .luarc.json, by which editors with lua-language-server know the API,
and .busted, by which busted finds the library without luna test. A file that is
there already is left as it is: what belongs into it is printed.]]

-- Of busted, beside those of the engines.
local GLOBALS = { "jit", "describe", "it", "pending", "setup", "teardown", "before_each",
  "after_each", "lazy_setup", "lazy_teardown", "finally", "insulate", "expose", "spy", "stub",
  "mock", "match" }

function M.describe(command)
  command:argument("directory", "Where."):default "."
  command:epilog(EPILOG)
end

-- Where a module is: its path up to the name; nil where it is not there.
local function root_of(name, path)
  local found = package.searchpath(name, path)
  return found and found:sub(1, #found - #name - #found:match "%.%w+$" - 1)
end

-- ---- The editor ----

local function editor()
  local root = root_of("lunavisor.meta.lunavisor", package.path)
  return json.encode({
    ["runtime.version"] = rawget(_G, "jit") and "LuaJIT" or "Lua 5.4",
    ["workspace.library"] = { root .. "/lunavisor/meta" },
    ["workspace.checkThirdParty"] = false,
    ["diagnostics.globals"] = GLOBALS,
  }, "") .. "\n"
end

-- ---- busted ----

local BUSTED = [[
-- By luna init: where plain busted finds the library.
return {
  _all = {
    ROOT = { "." },
    lpath = %q,
    cpath = %q,
  },
}
]]

local function busted()
  local paths, seen = {}, {}
  for _, name in ipairs { "lunavisor.meta.lunavisor", "lunavisor.binding.cdef" } do
    local root = root_of(name, package.path)
    if root and not seen[root] then
      seen[root] = true
      paths[#paths + 1] = ("%s/?.lua;%s/?/init.lua"):format(root, root)
    end
  end
  local native = root_of("lunavisor.binding.native", package.cpath)
  return BUSTED:format(table.concat(paths, ";"), native and native .. "/?.so" or "")
end

-- ---- Writing ----

-- Those that are not there; nil and a message where one is and has another text.
local function missing(list)
  local new = {}
  for _, one in ipairs(list) do
    local text = files.read(one.path)
    if not text then
      new[#new + 1] = one
    elseif text ~= one.text then
      return nil, ("%s is there already, and is left as it is. This belongs into it:\n%s"):format(
        one.path, one.text)
    end
  end
  return new
end

--- Status 0 where both files are as they should be, 126 where one is something else or cannot be
--- written; then none is.
function M.run(options)
  local directory = options.directory:gsub("(.)/+$", "%1")
  local list = { { path = directory .. "/.luarc.json", text = editor() },
    { path = directory .. "/.busted", text = busted() } }
  local new, message = missing(list)
  if not new then return say.cannot("init: %s", message) end
  local ok
  ok, message = files.create(new)
  if not ok then return say.cannot("init: %s", message) end
  for _, one in ipairs(new) do print(one.path) end
  if #new == 0 then print "all is there" end
  return 0
end

return M
