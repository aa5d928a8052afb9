-- SPDX-License-Identifier: MIT
-- What luna run and luna boot say of a run besides what it does: the options that both have for it,
-- what is begun before the VMs are made, and what is said and written at the end, also where a
-- script calls os.exit.

local say = require "lunavisor.program.say"

local M = {}

--- The options.
function M.describe(command)
  command:flag("--stats", "Say at the end where the time went: exits, devices, addresses.")
  command:option("--trace", "Write exits, accesses and lines for ui.perfetto.dev.")
    :argname "FILE"
end

-- Each has done(json), which says or writes what it has seen; json: what a line of results gets.
-- The status where that fails, or nil.
local kinds = {}

function kinds.stats()
  local stats = require "lunavisor.measure.stats"
  local made = stats.new()
  require("lunavisor.vm.meter").add(made)
  return { done = function(json)
    local result = made:result()
    if json then
      json.stats = result
    else
      say.line("%s", stats.text(result))
    end
  end }
end

function kinds.trace(path)
  local made, message = require("lunavisor.measure.trace").new(path)
  if not made then return nil, "--trace: " .. message end
  require("lunavisor.vm.meter").add(made)
  return { done = function() assert(made:close()) end }
end

local Session = {}
Session.__index = Session

--- Begins what the options say. nil, message where something of it cannot be.
function M.begin(options)
  local self = setmetatable({ parts = {}, status = 0, exit = os.exit }, Session)
  for _, name in ipairs { "stats", "trace" } do
    if options[name] then
      local part, message = kinds[name](options[name], options)
      if not part then
        self:finish()
        return nil, message
      end
      self.parts[#self.parts + 1] = part
    end
  end
  if #self.parts > 0 then self:catch() end
  return self
end

-- A script that ends the program ends this first.
function Session.catch(self)
  rawset(os, "exit", function(code, ...)
    self:finish()
    return self.exit(code, ...)
  end)
end

--- Ends it. json: as above. Doing it twice is fine. Returns the status, 0 where all went well.
function Session.finish(self, json)
  rawset(os, "exit", self.exit)
  for _, part in ipairs(self.parts) do
    local ok, message = pcall(part.done, json)
    if not ok then
      say.line("%s", say.plain(message))
      self.status = 1
    end
  end
  self.parts = {}
  return self.status
end

return M
