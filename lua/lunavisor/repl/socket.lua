-- SPDX-License-Identifier: MIT
-- A prompt for programs: lines of JSON on a Unix socket. A line that comes is { "line": "c" }, with
-- any "id", or { "interrupt": true } while the guest runs; each is answered by one line.

local channel = require "lunavisor.device.models.channel"
local class = require "lunavisor.class"
local json = require "lunavisor.repl.json"
local raw = require "lunavisor.binding.backend"

local M = {}

local KEEP, MOST = 2 ^ 22, 2 ^ 20 -- bytes that a client has not taken, and of a line
local NAP = 5e6                   -- nanoseconds between looks

-- ---- Messages ----

local function send(self, message)
  self.channel:write(json.line(message) .. "\n")
end

-- What is told of an exit.
local function exit_of(exit)
  local value = exit.value
  return { kind = exit.kind, text = tostring(exit), vcpu = exit.cpu and exit.cpu[1] and exit.cpu.id,
    value = (type(value) == "string" or type(value) == "number") and value or nil }
end

-- The next request; nil where none is here whole.
local function take(self)
  local line, rest = self.text:match "^([^\n]*)\n(.*)$"
  if not line then
    if #self.text > MOST then
      self.text = ""
      send(self, { ok = false, error = "a line of more than 1 MiB" })
    end
    return nil
  end
  self.text = rest
  local ok, request = pcall(json.decode, line)
  if ok and type(request) == "string" then request = { line = request } end
  if ok and type(request) == "table" and (type(request.line) == "string" or request.interrupt) then
    return request
  end
  send(self, { ok = false, error = ok and 'expected: {"line": "..."} or {"interrupt": true}'
    or tostring(request) })
  return nil
end

local function poll(self)
  if not self.channel.connected then self.text = "" end
  self.channel:poll()
end

-- While the guest runs: whether the client wants it to stop. Whatever else it wants has to wait.
local function between(self)
  poll(self)
  local request = take(self)
  if not request then return false end
  if request.interrupt then
    send(self, { id = request.id, ok = true, output = "" })
    return true
  end
  send(self, { id = request.id, ok = false, running = true,
    error = 'the guest runs: {"interrupt": true} stops it' })
  return false
end

local function answer(self, session, request)
  if not request.line then
    return send(self, { id = request.id, ok = false, error = "the guest does not run" })
  end
  self.said = {}
  local before = session.exit
  local text, problem, more = session:line(request.line)
  local message = { id = request.id, ok = problem == nil, error = problem, more = more,
    output = table.concat(self.said) .. (text or "") }
  if session.exit and session.exit ~= before then message.exit = exit_of(session.exit) end
  send(self, message)
end

-- ---- The prompt ----

local Socket = class.class "prompt socket"

--- A prompt at a path; nil, message, code where the host refuses.
function M.new(path)
  local made, message, code = channel.unix { path = path, keep = KEEP, period = false,
    busy = '{"ok": false, "error": "another client is connected"}\n' }
  if not made then return nil, message, code end
  local self = setmetatable({ channel = made, text = "", said = {} }, Socket)
  made:receive(function(text) self.text = self.text .. text end)
  self.between = function() return between(self) end
  self.say = function(text) self.said[#self.said + 1] = text end
  return self
end

--- Answers clients, one after the other, until one of them leaves the session.
function M.run(self, session)
  while not session.leaving do
    poll(self)
    local request = take(self)
    if request then
      answer(self, session, request)
    else
      local fds = self.channel:descriptors()
      raw.stream_wait(fds[2] or fds[1], NAP)
      local text = session:idle()
      if text then send(self, { ok = true, output = text, exit = exit_of(session.exit) }) end
    end
  end
end

function M.close(self) self.channel:close() end

class.define(Socket, {}, "", "channel text said between say")

return M
