-- SPDX-License-Identifier: MIT
-- Where the guest's serial port ends in luna boot: the standard input and output, a pseudo-terminal
-- or a file; and the steps of --send, --type and --wait-for, one after the other.

local say = require "lunavisor.program.say"

local M = {}

local KEPT = 65536 -- of what the guest has said, for the step that waits

-- ---- Where it ends ----

local Console = {}
Console.__index = Console

local function channel() return require "lunavisor.device.models.channel" end

local function to_file(file)
  return function(text)
    file:write(text)
    file:flush()
  end
end

--- A console: "stdio", "pty" or the name of a file. nil, message where it cannot be.
function M.new(where)
  local self = setmetatable({}, Console)
  local message
  if where == "stdio" then
    self.put = to_file(io.stdout)
    self.channel = channel().stdio() -- for what comes: none without a standard input
  elseif where == "pty" then
    self.channel, message = channel().pty()
    if not self.channel then return nil, message end
    self.put = function(text) self.channel:write(text) end
    say.line("the console is %s", self.channel.path)
  else
    self.file, message = io.open(where, "wb")
    if not self.file then return nil, "--console: " .. message end
    self.put = to_file(self.file)
  end
  return self
end

--- Gives the guest what comes.
function Console.connect(self, vm)
  if not self.channel then return end
  local com1 = vm.devices.com1
  self.channel:receive(function(text) com1:feed(text) end)
  self.channel:serve(vm)
end

function Console.close(self)
  if self.channel then self.channel:close() end
  if self.file then self.file:close() end
end

-- ---- Steps ----

local Script = {}
Script.__index = Script

--- A text with \n, \r, \t, \e, \\ and \xHH in it as it is meant.
M.unescape = require "lunavisor.text.escape"

--- Steps: a list of { kind = "send", "type" or "wait", text = }. actions: by kind, functions of the
--- text, and done(), called when the last one is over and was a wait.
function M.script(steps, actions)
  return setmetatable({ steps = steps, actions = actions, at = 1, text = "" }, Script)
end

--- What it waits for; nil.
function Script.waiting(self)
  local step = self.steps[self.at]
  return step and step.kind == "wait" and step.text or nil
end

local function next_step(self)
  self.at = self.at + 1
  if self.at > #self.steps and self.steps[#self.steps].kind == "wait" then self.actions.done() end
end

--- Does what comes before the next wait.
function Script.go(self)
  local step = self.steps[self.at]
  while step and step.kind ~= "wait" do
    self.actions[step.kind](step.text)
    next_step(self)
    step = self.steps[self.at]
  end
end

--- The guest has said something.
function Script.said(self, text)
  local wanted = self:waiting()
  self.text = (self.text .. text):sub(-KEPT)
  while wanted do
    local _, last = self.text:find(wanted, 1, true)
    if not last then return end
    self.text = self.text:sub(last + 1)
    next_step(self)
    self:go()
    wanted = self:waiting()
  end
end

--- The screen is this.
function Script.seen(self, text)
  local wanted = self:waiting()
  if wanted and text:find(wanted, 1, true) then
    next_step(self)
    self:go()
  end
end

return M
