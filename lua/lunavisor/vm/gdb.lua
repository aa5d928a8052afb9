-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: being looked at by gdb.

local check = require "lunavisor.check"
local class = require "lunavisor.class"

local open = class.opener(class.class "vm")

local known = { port = true, path = true, stdio = true, address = true, bits = true }
local widths = { [16] = true, [32] = true, [64] = true }

-- The options, of which one says where.
local function check_options(options)
  options = check.options("vm:gdb", options, known, 2)
  local stdio = check.flag("vm:gdb: stdio", options.stdio, 2)
  local count = (options.port ~= nil and 1 or 0) + (options.path ~= nil and 1 or 0)
    + (stdio and 1 or 0)
  if count ~= 1 then
    error("vm:gdb: one of port, path and stdio = true expected", 3)
  elseif options.address ~= nil and options.port == nil then
    error("vm:gdb: address is for a port only", 3)
  elseif options.bits ~= nil and not widths[options.bits] then
    error(("vm:gdb: bits: 16, 32 or 64 expected, got %s"):format(tostring(options.bits)), 3)
  end
  if options.port ~= nil then check.whole("vm:gdb: port", options.port, 0, 65535, 2) end
  if options.path ~= nil then check.name("vm:gdb: path", options.path, "a path", 2) end
  if options.address ~= nil then
    check.name("vm:gdb: address", options.address, "an address", 2)
  end
  return options
end

return function(methods)
  --- A server for gdb: options.port (TCP, 0 for one that is free: server.port), options.path (a
  --- Unix socket, for its owner alone) or options.stdio = true (gdb's `target remote | luajit
  --- x.lua`; the script must not print then). A port is on 127.0.0.1, unless options.address says
  --- another of this host's: whoever can connect can run Lua here, by `monitor`. One client at a
  --- time; a second is told so. options.bits: 16, 32 or 64, of the registers that gdb is shown;
  --- where nil, those of the code that the vCPU is at when gdb connects. server:serve() answers a
  --- client and runs the guest for it; a client that comes while the script runs the guest ends
  --- that run with exit.kind "stopped" and the server as exit.value. nil, message, code where the
  --- host refuses.
  function methods.gdb(self, options)
    open(self)
    options = check_options(options)
    local servers = require "lunavisor.gdb.server"
    local channel, message, code = servers.channel(options)
    if not channel then return check.result(nil, message, code) end
    return servers.new(self, channel, options.bits)
  end
end
