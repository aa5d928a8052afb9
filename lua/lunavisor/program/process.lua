-- SPDX-License-Identifier: MIT
-- luna run --linux: a static Linux program as a process (luna.process), with the streams of the
-- shell.

local raw = require "lunavisor.binding.backend"
local say = require "lunavisor.program.say"
local trace = require "lunavisor.exit.trace"
local values = require "lunavisor.program.values"
local watching = require "lunavisor.program.watching"

local M = {}

function M.describe(command)
  command:flag("--linux", "Run a static Linux program instead.")
  command:option("--root", "Files that it can open, for reading."):argname "DIR"
  command:option("--env", "A variable of its environment; may be repeated."):argname "NAME=VALUE"
    :count "*"
  command:option("-m --memory", "The most memory that it gets (256M)."):argname "SIZE"
  command:option("--timeout", "Seconds until status 124."):convert(values.seconds):argname "SECONDS"
  command:flag("--terminal", "Its standard streams are a terminal to it.")
  command:flag("--calls", "Show its system calls.")
end

local OWN = { "root", "memory", "timeout", "terminal", "calls", "env" }
local OTHERS = { "set", "json" }

--- The first option that is for a program alone, or for a script alone, and goes with the other.
function M.not_for(options)
  for _, name in ipairs(options.linux and OTHERS or OWN) do
    local value = options[name]
    if value and (type(value) ~= "table" or value[1]) then return name end
  end
end

-- What the standard input has, at least a byte, as soon as it has any.
local function input()
  io.stdin:setvbuf "no"
  return function(count)
    local first = io.stdin:read(1)
    if not first then return nil end
    return first .. (count > 1 and raw.stream_read(0, count - 1) or "")
  end
end

local function environment_of(list)
  local found = {}
  for _, text in ipairs(list or {}) do
    local name, value = text:match "^([^=]+)=(.*)$"
    if not name then return nil, ("--env: NAME=VALUE expected, got %s"):format(text) end
    found[name] = value
  end
  return found
end

-- What it writes goes to the stream of that name, and to what looks at the run.
local function output(session, name)
  return function(text)
    io[name]:write(text)
    io[name]:flush()
    session:say(name, text)
  end
end

local function make(options, environment, session)
  return require("lunavisor").process(options.script, {
    args = options.rest, env = environment, root = options.root, memory = options.memory,
    terminal = options.terminal, stdin = input(), seed = options.seed,
    stdout = output(session, "stdout"), stderr = output(session, "stderr"),
    trace = options.calls and function(text) say.line("%s", text) end or nil,
  })
end

-- The status: the program's, or as its ending has it; with a line, and a post-mortem, where that
-- is not its own. Behind it a sentence.
local function judge(process, options)
  local ending, message = process:run { timeout = options.timeout }
  if not ending then return say.cannot("%s", message), message end
  local status = ending.status or say.CRASH
  if ending.kind == "timeout" then
    say.line("%s has not ended within %g s: %s", process.name, options.timeout,
      tostring(ending.exit))
  elseif ending.kind ~= "exited" then
    say.line("%s: %s", process.name, tostring(ending))
  end
  if ending.exit then say.post_mortem(ending.exit) end
  return status, ending.kind == "exited" and ("The program has ended, status %d."):format(status)
    or ("%s: status %d."):format(tostring(ending), status)
end

function M.run(options)
  local environment, problem = environment_of(options.env)
  if not environment then return say.cannot("%s", problem) end
  local session
  session, problem = watching.begin(options)
  if not session then return say.cannot("%s", problem) end
  local ok, process, message = pcall(make, options, environment, session)
  if not (ok and process) then
    local text = say.plain(ok and message or process):gsub("^luna%.process: ", "")
    session:finish(nil, { status = say.CANNOT, text = text })
    return say.cannot("%s", text)
  end
  local status, text
  ok, status, text = xpcall(judge, trace.back, process, options)
  process:close()
  local outcome = watching.outcome(ok, status, status, text)
  local failed = session:finish(nil, outcome)
  if ok then return status == 0 and failed or status end
  say.line("%s", outcome.status == say.INTERRUPTED and "interrupted" or tostring(status))
  return outcome.status
end

return M
