-- SPDX-License-Identifier: MIT
-- A scripted client of gdb's remote protocol, within this process: what it asks is there before the
-- server looks.

local busted = require "busted"
local helper = require "spec.support.helper"
local packet = require "lunavisor.gdb.packet"

local uv = require "spec.support.luv"
local M = {}

-- Its field `got` is what has come, `over` whether it was hung up on.
local Client = {}
Client.__index = Client

--- A client that is connected to the server.
function M.client(server)
  if not uv then busted.pending "luv is not installed" end
  local self = setmetatable({ server = server, got = "", over = false }, Client)
  local handle = server.port and uv.new_tcp() or uv.new_pipe(false)
  self.handle = handle
  local function connected(problem)
    assert(not problem, problem)
    self.connected = true
    handle:read_start(function(_, text)
      if text then self.got = self.got .. text else self.over = true end
    end)
  end
  if server.port then
    handle:connect("127.0.0.1", server.port, connected)
  else
    handle:connect(server.path, connected)
  end
  helper.within(function()
    uv.run "nowait"
    return self.connected
  end)
  return helper.keep(self)
end

function Client.send(self, text)
  self.handle:write(text)
  uv.run "nowait"
end

function Client.close(self)
  if not self.handle:is_closing() then self.handle:close() end
  uv.run "nowait"
end

--- Lets the server answer until it has nothing more to do; why it ended.
function Client.serve(self)
  local ending = self.server:serve { timeout = 0.03 }
  for _ = 1, 5 do uv.run "nowait" end
  return ending
end

-- Whether the last packet that has come is whole, and no "O", which others follow.
local function is_answered(text)
  local last = text:match "%$([^$#]*)#%x%x$"
  return last ~= nil and not last:find "^O%x"
end

--- Sends a packet, and `more` behind it, and gives the last answer's body, with what "O" packets
--- have said.
function Client.ask(self, body, more)
  self.got = ""
  self:send(packet.frame(body) .. (more or ""))
  helper.within(function()
    self:serve()
    return is_answered(self.got)
  end)
  local said, last = {}, nil
  for one in self.got:gmatch "%$([^#]*)#%x%x" do
    if one:find "^O%x" then said[#said + 1] = packet.bytes(one:sub(2)) else last = one end
  end
  return last, table.concat(said)
end

return M
