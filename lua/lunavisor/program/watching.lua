-- SPDX-License-Identifier: MIT
-- What luna run and luna boot say of a run besides what it does: the options that both have for it,
-- what is begun before the VMs are made, and what is said and written at the end, also where a
-- script calls os.exit.

local raw = require "lunavisor.binding.backend"
local say = require "lunavisor.program.say"

local M = {}

--- The options.
function M.describe(command)
  command:flag("--stats", "Say at the end where the time went: exits, devices, addresses.")
  command:option("--trace", "Write exits, accesses and lines for ui.perfetto.dev.")
    :argname "FILE"
  command:option("--report", "Write a page of the run, to be looked at in a browser.")
    :argname "FILE"
  command:option("--record", "Record what comes to devices, for t.replay."):argname "FILE"
  command:flag("--watch", "Read devices again when their file changes.")
end

-- Raises where a file could not be closed with all in it.
local function closed(what, ok, message)
  if not ok then error(("%s: %s"):format(what, tostring(message)), 0) end
end

-- Each has done(json, outcome), which says or writes what it has seen, or raises; json: what a line
-- of results gets; outcome: how the run has ended, nil where it was never begun.
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
  return { done = function() closed("--trace: " .. path, made:close()) end }
end

local function version()
  local jit = rawget(_G, "jit")
  return require("lunavisor")._VERSION .. ", " .. (jit and jit.version or _VERSION)
end

-- What luna was called with, as a shell has it.
local function command_line(words)
  local list = { "luna" }
  for _, word in ipairs(words) do
    list[#list + 1] = word:find "^[%w%%+,./:=@_-]+$" and word
      or "'" .. word:gsub("'", "'\\''") .. "'"
  end
  return table.concat(list, " ")
end

function kinds.report(path, options)
  local made, message = require("lunavisor.measure.report").new(path, {
    title = command_line(options.words or {}), version = version() })
  if not made then return nil, "--report: " .. message end
  require("lunavisor.vm.meter").add(made)
  return { done = function(_, outcome) closed("--report: " .. path, made:close(outcome)) end,
    say = function(name, text) made:say(name, text) end }
end

-- The first VM's to the file, those of further ones to FILE.2 and so on.
function kinds.record(path)
  local file, message = io.open(path, "wb")
  if not file then return nil, "--record: " .. message end
  file:close()
  local count, recordings = 0, {}
  require("lunavisor.vm.meter").add { begin = function(vm)
    count = count + 1
    local made = assert(vm:record(count == 1 and path or path .. "." .. count))
    recordings[count] = made
    return { close = function() made:close() end }
  end }
  return { done = function()
    for _, made in ipairs(recordings) do made:close() end
  end }
end

function kinds.watch(_, options)
  require("lunavisor.vm.meter").add(require("lunavisor.program.reload").new(options.script))
  return { done = function() end }
end

-- gdb has the first VM from its first instruction until it lets it go.
function kinds.gdb(port)
  require("lunavisor.program.first").new(function(vm)
    local server, message = vm:gdb { port = port }
    if not server then os.exit(say.cannot("--gdb: %s", message), true) end
    say.line("waiting for gdb: target remote :%d", server.port)
    local ending = server:serve()
    server:close()
    if ending == "killed" then os.exit(0, true) end
  end)
  return { done = function() end }
end

--- How a script or a run has ended, for finish: `ok` is whether it has returned, with a status and
--- a sentence, else `result` is its error.
function M.outcome(ok, result, status, text)
  if ok then return { status = status, text = text } end
  local cut = tostring(result):find "^[^\n]*interrupted!"
  return { status = cut and say.INTERRUPTED or 1, detail = tostring(result),
    text = cut and "The run was interrupted." or "An error was raised." }
end

local Session = {}
Session.__index = Session

--- Begins what the options say; `gdb`: also that of luna run, which has no loop of its own. nil,
--- message where something of it cannot be.
function M.begin(options, gdb)
  raw.interrupt_guard()
  local self = setmetatable({ parts = {}, status = 0, exit = os.exit }, Session)
  for _, name in ipairs { "stats", "trace", "report", "record", "watch", "gdb" } do
    if options[name] and (name ~= "gdb" or gdb) then
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
    local status = code == nil and 0 or tonumber(code) or code == true and 0 or 1
    self:finish(nil, { status = status, text = ("The script has called os.exit: status %d"):format(
      status) })
    return self.exit(code, ...)
  end)
end

--- Something that no device of a VM prints, such as what a process writes.
function Session.say(self, name, text)
  for _, part in ipairs(self.parts) do
    if part.say then part.say(name, text) end
  end
end

--- Ends it. json: as above; outcome: { status =, text = a sentence, detail = more of it or nil }.
--- Doing it twice is fine. Returns the status, 0 where all went well.
function Session.finish(self, json, outcome)
  rawset(os, "exit", self.exit)
  for _, part in ipairs(self.parts) do
    local ok, message = pcall(part.done, json, outcome)
    if not ok then
      say.line("%s", say.plain(message))
      self.status = 1
    end
  end
  self.parts = {}
  return self.status
end

return M
