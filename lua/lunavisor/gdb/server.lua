-- SPDX-License-Identifier: MIT
-- A server of gdb's remote protocol: its client, the guest between two stops, and what is told of a
-- stop. All vCPUs stand while a client is asking (all-stop).

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local channel = require "lunavisor.device.models.channel"
local command = require "lunavisor.gdb.command"
local packet = require "lunavisor.gdb.packet"
local points = require "lunavisor.gdb.point"
local limits = require "lunavisor.vm.limit"

local Server = class.class("gdb server", "gdb")
local mine = class.checker(Server)
local methods = {}
local M = { class = Server }

local SLICE = 0.01                        -- seconds of the guest between looks for an interrupt
local SHORTEST, LONGEST = 2e5, 1e7        -- nanoseconds between looks while nothing runs
local KEEP = 2 ^ 22                       -- bytes that a client has not taken
local PIECE = 0x1800                      -- bytes of text in a packet

-- ---- The client ----

--- Sends the packet of a body. For answers.
function methods.send(self, body)
  mine(self)
  self.sent = packet.frame(body)
  self.channel:write(self.sent)
end

--- Shows text on the client's console, while it waits for the guest or for `monitor`.
function methods.say(self, text)
  mine(self)
  for from = 1, #text, PIECE do
    methods.send(self, "O" .. packet.hex(text:sub(from, from + PIECE - 1)))
  end
end

-- What the next client finds.
local function reset(self)
  points.clear_all(self.points)
  self.text, self.sent, self.last, self.ending = "", "", "S05", false
  self.quiet, self.registers, self.current = false, false, false
  self.channel.out:take()
end

local function is_there(self)
  if self.channel.kind == "stdio" then return self.channel.input ~= nil end
  return self.channel.connected
end

-- The next packet's body, "\3" for an interrupt; nil where none is here now.
local function receive(self)
  self.channel:poll()
  while true do
    local kind, body, rest = packet.next(self.text)
    self.text = rest
    if not kind then return nil end
    if kind == "again" then self.channel:write(self.sent) end
    if kind == "interrupt" then return "\3" end
    if kind == "damaged" then self.channel:write "-" end
    if kind == "packet" then
      if not self.quiet then self.channel:write "+" end
      return body
    end
  end
end

-- ---- Stops ----

-- Signals of gdb's own numbers: SIGINT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV.
local signals = { timeout = 2, interrupted = 2, instruction = 4, shutdown = 6, internal = 6,
  fail_entry = 6, fault = 11, host_fault = 11, exception = 11 }
local of_vectors = { [0] = 8, [1] = 5, [3] = 5, [6] = 4 }

local function stop_at(self, cpu, signal, told)
  self.current = cpu or command.current(self)
  self.last = ("T%02xthread:%s;%s"):format(signal, command.number(self.vm, self.current),
    told or "")
  methods.send(self, self.last)
end

-- A stop at an exit; what the client would not know of it is shown.
local function stop_with(self, exit, cpu)
  self.exit = exit
  if exit.kind == "debug" then
    return stop_at(self, cpu, 5, exit.breakpoint and points.told(self.points, exit.breakpoint))
  end
  if exit.kind ~= "timeout" then methods.say(self, tostring(exit) .. "\n") end
  local signal = exit.kind == "exception" and of_vectors[exit.vector] or signals[exit.kind] or 5
  stop_at(self, cpu, signal)
end

-- One stretch of the guest: the exit and its vCPU; nil and a message.
local function stretch(self, step)
  local vm = self.vm
  local ok, exit, other
  if step then
    ok, exit, other = pcall(step.step, step, 1, { timeout = SLICE })
  elseif #vm.vcpus == 1 then
    ok, exit, other = pcall(vm.vcpus[1].run, vm.vcpus[1], { timeout = SLICE })
  else
    ok, exit, other = pcall(vm.run, vm, { timeout = SLICE })
  end
  if ok and exit then return exit, exit.cpu or step end
  return nil, tostring(not ok and exit or other)
end

--- Lets the guest run, or one vCPU do one instruction, until there is something to tell.
function methods.resume(self, step)
  mine(self)
  while true do
    local exit, cpu = stretch(self, step)
    if not self.vm[1] or #self.vm.vcpus == 0 then
      self.ending = "closed"
      methods.send(self, "W00")
      return
    end
    if not exit then
      methods.say(self, cpu .. "\n")
      return stop_at(self, step, 6)
    end
    local asked = exit.kind == "timeout" and receive(self)
    if asked == "\3" then return stop_with(self, exit, cpu) end
    if not is_there(self) then return end
    if exit.kind ~= "timeout" then return stop_with(self, exit, cpu) end
  end
end

-- ---- The life of a server ----

-- Waits for the client; whether the deadline has passed.
local function nap(self, deadline)
  self.pause = math.min(self.pause * 2, LONGEST)
  raw.next(self.vm, raw.clock() + self.pause)
  return deadline ~= 0 and raw.clock() >= deadline
end

local function converse(self, deadline)
  local seen, vm = is_there(self), self.vm
  while not self.closed and vm[1] and #vm.vcpus > 0 do
    local body = receive(self)
    if body and body ~= "\3" then
      self.pause, seen = SHORTEST, true
      local answer = command.answer(self, body)
      if answer then methods.send(self, answer) end
      if self.ending then return self.ending end
    elseif seen and not is_there(self) then
      return "gone"
    elseif not body and nap(self, deadline) then
      return "timeout"
    end
    seen = seen or is_there(self)
  end
  return "closed"
end

local serve_options = { timeout = true, deadline = true }

--- Waits for a client and answers it; the guest runs when the client says so, with the devices and
--- handlers of the script. Returns why it ended, and the exit at which the guest stands, if any:
--- "detached" (the client has let it go), "killed" (it wants the guest to end), "gone" (it went
--- without a word), "timeout" (options.timeout seconds or options.deadline have passed while the
--- guest stood, the client may still be there) or "closed" (the server or the VM). Breakpoints of a
--- client go with it. May be called again, for the next client.
function methods.serve(self, options)
  mine(self)
  if self.closed then error("attempt to use a closed gdb server", 2) end
  if not self.vm[1] then error("attempt to use a closed vm", 2) end
  if #self.vm.vcpus == 0 then error("gdb:serve: this VM has no vCPU to debug", 2) end
  options = check.options("gdb:serve", options, serve_options)
  local deadline = limits.deadline("gdb:serve", options)
  self.serving, self.pause = true, SHORTEST
  local ok, ending = pcall(converse, self, deadline)
  self.serving = false
  if not ok then error(ending, 0) end
  if ending ~= "timeout" then
    if ending ~= "closed" then self.channel:poll() end
    reset(self)
    if ending == "detached" or ending == "killed" then self.channel:drop() end
  end
  return ending, self.exit or nil
end

--- Closes it, and takes its breakpoints away; the guest is as it is. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.closed then return end
  self.closed = true
  if self.timer then self.timer:close() end
  points.clear_all(self.points)
  self.channel:close()
end

class.define(Server, methods, "vm port path connected exit refusal closed", [[
  channel points text sent last ending quiet registers features bits fixed current pause serving
  timer]])
class.computed(Server, {
  port = function(self) return self.channel.port end,
  path = function(self) return self.channel.path end,
  connected = function(self) return is_there(self) end,
})
Server.__close = methods.close

function Server.__tostring(self)
  local where = self.channel.path or self.channel.port and "port " .. self.channel.port
    or "standard input and output"
  return ("gdb server on %s (%s)"):format(where, self.closed and "closed"
    or is_there(self) and "a client is there" or "nobody there")
end

-- A client that comes while the script runs the guest ends that run, so that it can be served.
local function look(self)
  if self.serving or self.closed then return end
  self.channel:poll()
  if is_there(self) then self.vm:stop(self) end
end

--- A server of a VM on a channel. `fixed`: the bits of the registers' description, nil where the
--- mode of the vCPU decides.
function M.new(vm, made, fixed)
  local self = setmetatable({ vm = vm, channel = made, points = {}, fixed = fixed or false,
    pause = SHORTEST, serving = false, closed = false, exit = false, refusal = false,
    timer = false }, Server)
  reset(self)
  made:receive(function(text) self.text = self.text .. text end)
  if made.kind ~= "stdio" then
    self.timer = vm:timer(0.05, function() look(self) end, { period = 0.05 })
  end
  return self
end

--- The channel that options of vm:gdb ask for; nil, message, code.
function M.channel(options)
  if options.stdio then return channel.stdio { keep = KEEP, period = false } end
  if options.path then
    return channel.unix { path = options.path, keep = KEEP, period = false }
  end
  return channel.tcp { port = options.port, address = options.address, keep = KEEP,
    period = false }
end

return M
