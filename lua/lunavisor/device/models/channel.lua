-- SPDX-License-Identifier: MIT
-- Ways from a device's characters to the outside, and back: TCP, a Unix socket, a pseudo-terminal,
-- the standard input and output, files. None of them ever waits: what nobody takes yet is kept.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local keep = require "lunavisor.keep"
local stream = require "lunavisor.device.models.stream"

local M = {}

local Channel = class.class "channel"
local mine = class.checker(Channel)
local methods = {}

local MOST = 4096 -- bytes that are read at once
local BUSY = "Another client is connected.\r\n" -- to a second one

-- ---- Descriptors ----

-- Calls fn when what it returns is garbage.
local function guard(fn)
  local newproxy = rawget(_G, "newproxy")
  if not newproxy then return setmetatable({}, { __gc = fn }) end
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = fn
  return proxy
end

-- A descriptor of raw.stream_*, noted among the channel's; nil, message, code.
local function open_one(self, make, ...)
  local fds = self.fds
  return keep(function(fd)
    fds[fd] = nil
    raw.stream_close(fd)
  end, function(fd)
    if fd >= 0 then fds[fd] = true end
    return fd
  end, make, ...)
end

local function close_one(self, fd)
  if not self.fds[fd] then return end
  self.fds[fd] = nil
  raw.stream_close(fd)
end

local function new(what, kind, options)
  local size = options.keep == nil and 65536
    or check.whole(what .. ": keep", options.keep, 1, 2 ^ 31 - 1, 2)
  local period = options.period
  if period ~= nil and period ~= false
    and (type(period) ~= "number" or period < 1e-4 or period ~= period) then
    error(("%s: period: seconds from 0.0001 on, or false, expected, got %s"):format(what,
      tostring(period)), 3)
  end
  local fds = {}
  return setmetatable({ kind = kind, fds = fds, out = stream.ring(size), connected = false,
    refused = 0, closed = false,
    busy = options.busy == nil and BUSY or check.name(what .. ": busy", options.busy, "a text", 2),
    period = period == nil and 0.01 or period,
    guard = guard(function() for fd in pairs(fds) do raw.stream_close(fd) end end) }, Channel)
end

-- ---- Both directions ----

-- The client is gone: what it has not taken is for the next one.
local function leave(self)
  self.connected = false
  if not self.listener then return end
  if self.output then close_one(self, self.output) end
  self.input, self.output = nil, nil
end

local function flush(self)
  local output, out = self.output, self.out
  if not output or out.length == 0 then return end
  local data = out:take()
  local count = raw.stream_write(output, data)
  if count ~= #data then out:write(count and data:sub(count + 1) or data) end
  if not count then leave(self) else self.connected = true end
end

-- Gives the device what has come, as much as it has room for. Without a device it is lost.
local function receive(self)
  local most = self.room and math.min(self.room(), MOST) or MOST
  if not self.input or most <= 0 then return end
  local data = raw.stream_read(self.input, most)
  if data == false then return end
  if data == nil or data == "" then
    if self.kind == "stdio" or self.kind == "file" then
      self.input = nil
    else
      leave(self)
    end
  elseif self.receiver then
    self.connected = true
    self.receiver(data)
  end
end

local function accept(self)
  while self.listener do
    local fd = open_one(self, raw.stream_accept, self.listener)
    if not fd or fd < 0 then return end
    if self.output then
      raw.stream_write(fd, self.busy)
      close_one(self, fd)
      self.refused = self.refused + 1
    else
      self.input, self.output, self.connected = fd, fd, true
    end
  end
end

-- ---- Methods ----

--- Sends text to whoever is there; what is not taken now is kept, the last `keep` bytes of it.
function methods.write(self, text)
  mine(self)
  if self.closed then return self end
  self.out:write(text)
  flush(self)
  return self
end

--- Takes and refuses clients, sends what is kept, and gives the device what has come; without
--- waiting. A VM does it by itself for the devices that are attached to it.
function methods.poll(self)
  mine(self)
  if self.closed then return end
  receive(self)
  accept(self)
  flush(self)
end

--- Sends the client away that is there, behind what it takes at once. For channels that listen.
function methods.drop(self)
  mine(self)
  if self.closed then return end
  flush(self)
  if self.connected then leave(self) end
end

--- Says who gets what comes: fn(text), and how many bytes it takes now, room(). Nobody where nil.
function methods.receive(self, fn, room)
  mine(self)
  self.receiver, self.room = fn, room
end

--- Lets the timers of a VM poll, every `period` seconds of its channel; of none where nil.
function methods.serve(self, vm)
  mine(self)
  if self.timer then self.timer:close() end
  self.timer = nil
  if not vm or not self.period or self.closed then return end
  self.timer = vm:timer(self.period, function() methods.poll(self) end, { period = self.period })
end

--- The descriptors whose readiness an event loop of the script's can wait for.
function methods.descriptors(self)
  mine(self)
  local list = {}
  for _, fd in ipairs { self.listener or -1, self.input or -1 } do
    if fd >= 0 then list[#list + 1] = fd end
  end
  return list
end

--- Closes it. The guest runs on; what it sends is lost. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.closed then return end
  methods.serve(self, nil)
  self.closed, self.connected = true, false
  for fd in pairs(self.fds) do close_one(self, fd) end
  if self.kind == "unix" then os.remove(self.path) end
  self.listener, self.input, self.output = nil, nil, nil
end

class.define(Channel, methods, "connected refused port path kind",
  "fds out period guard busy listener input output receiver room timer closed")
class.computed(Channel, { lost = function(self) return self.out.lost end })
Channel.__close = methods.close

function Channel.__tostring(self)
  local where = self.path or self.port and "port " .. self.port
  return ("channel %s%s (%s)"):format(self.kind, where and " " .. where or "",
    self.closed and "closed" or self.connected and "connected" or "nobody there")
end

-- ---- Kinds ----

local function failed(self, message, code)
  methods.close(self)
  return check.result(nil, message, code)
end

local function options_of(what, options, own)
  local known = { keep = true, period = true }
  for name in own:gmatch "%S+" do known[name] = true end
  options = check.options(what, options, known, 2)
  return options -- not a tail call: the check counts on this frame
end

--- A TCP port that one client at a time can connect to; others are told and sent away. options:
--- port, 0 (the default) for one that is free: channel.port; address: of this host, numeric,
--- 127.0.0.1 where nil, so that other machines cannot connect; keep: how many of the last bytes
--- nobody has taken are kept, 65536 where nil; busy: what a second client is told; period: seconds
--- between looks, 0.01 where nil, false for a script that polls itself. nil, message, code where
--- the host refuses.
function M.tcp(options)
  options = options_of("channel.tcp", options, "port address busy")
  local port = check.whole("channel.tcp: port", options.port or 0, 0, 65535)
  local address = check.name("channel.tcp: address", options.address or "127.0.0.1", "an address")
  local self = new("channel.tcp", "tcp", options)
  local fd, message, code = open_one(self, raw.stream_tcp, address, port)
  if not fd then return failed(self, message, code) end
  self.listener = fd
  self.port, message, code = raw.stream_port(fd)
  if not self.port then return failed(self, message, code) end
  return self
end

--- A Unix socket at options.path, for its owner alone (0600), as channel.tcp otherwise.
function M.unix(options)
  options = options_of("channel.unix", options, "path busy")
  local path = check.name("channel.unix: path", options.path, "a path")
  local self = new("channel.unix", "unix", options)
  local fd, message, code = open_one(self, raw.stream_unix, path)
  if not fd then
    self.kind = "none" -- the file is not ours
    return failed(self, message, code)
  end
  self.listener, self.path = fd, path
  return self
end

--- A pseudo-terminal: channel.path is what a terminal program opens.
function M.pty(options)
  options = options_of("channel.pty", options, "")
  local self = new("channel.pty", "pty", options)
  local fd, message, code = open_one(self, raw.stream_pty)
  if not fd then return failed(self, message, code) end
  self.input, self.output = fd, fd
  self.path, message, code = raw.stream_terminal(fd)
  if not self.path then return failed(self, message, code) end
  return self
end

--- The standard input and output of the process. A terminal stays in its mode: `stty raw -echo`
--- before is for guests that want each key.
function M.stdio(options)
  options = options_of("channel.stdio", options, "")
  local self = new("channel.stdio", "stdio", options)
  for fd, name in pairs { [0] = "input", [1] = "output" } do
    local made, message, code = open_one(self, raw.stream_share, fd)
    if not made then return failed(self, message, code) end
    self[name] = made
  end
  return self
end

--- Files: what the device sends goes to options.output, anew or, with append = true, behind what
--- is there; options.input is what it receives, as fast as it takes it. Either may be a pipe that
--- is there (a FIFO), also without anybody at its other end.
function M.file(options)
  options = options_of("channel.file", options, "output input append")
  local append = check.flag("channel.file: append", options.append)
  if options.output == nil and options.input == nil then
    error("channel.file: an output, an input or both expected", 2)
  end
  local self = new("channel.file", "file", options)
  for name, how in pairs { input = 0, output = append and 2 or 1 } do
    local path = options[name]
    if path ~= nil then
      path = check.name("channel.file: " .. name, path, "a path")
      local fd, message, code = open_one(self, raw.stream_open, path, how)
      if not fd then return failed(self, message, code) end
      self[name] = fd
    end
  end
  return self
end

return class.strict("channel", M)
