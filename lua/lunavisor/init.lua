-- SPDX-License-Identifier: MIT
-- lunavisor: guest-physical address spaces, devices and vCPUs over Linux/KVM, scripted.

local raw = require "lunavisor.binding.backend"
local accels = require "lunavisor.vm.accel"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local buffers = require "lunavisor.memory.buffer"
local deferred = require "lunavisor.deferred"
local trace = require "lunavisor.exit.trace"
local u64 = require "lunavisor.text.u64"

local disasm, repl = deferred "lunavisor.text.disasm", deferred "lunavisor.repl"

local luna = {
  _VERSION = "lunavisor " .. raw.version(),
  vm = require "lunavisor.vm.vm".new,
  buffer = buffers.new,
  asm = function(...) return require "lunavisor.text.asm"(...) end,
  disasm = function(...) return disasm.list(...) end,
  load = function(...) return require "lunavisor.load"(...) end,
  machine = require "lunavisor.machine".new,
  process = function(...) return require("lunavisor.process").new(...) end,
  probe = function(...) return require "lunavisor.probe"(...) end,
  u64 = u64,
  hex = u64.hex,
  arguments = {}, -- what `luna run --set` has said, by name: numbers where they are, else strings
  repl = function(...) return repl.repl(...) end,
}

--- Calls fn(handle) and closes the handle afterwards, also when fn raises. Returns what fn
--- returned.
function luna.with(handle, fn, ...)
  if type(handle) ~= "table" or type(handle.close) ~= "function" then
    error(("luna.with: something with a close method expected, got %s%s"):format(type(handle),
      handle == nil and type((...)) == "string" and " (" .. (...) .. ")" or ""), 2)
  end
  check.callable("luna.with", fn)
  local function finish(ok, ...)
    handle:close()
    if not ok then error((...), 0) end
    return ...
  end
  return finish(xpcall(fn, trace.back, handle, ...))
end

--- A limit of this host, by name: "vcpus_max" (in a VM), "slots_max" (in a space), "spaces_max" (in
--- the process: each takes a file descriptor, and one more for each vCPU that was in it),
--- "address_bits" (of a guest-physical address), "dirty_ring_max" (entries), "xsave_size" (bytes of
--- cpu.xsave), "controls" (1 where vCPUs follow those of a virtual-machine monitor, as lunavisor.hv
--- has them), "exceptions" (how many cpu:last_exceptions can tell, 0 on KVM), "shadow_vmcs" (1
--- where guests that are hypervisors have one, by lunavisor.hv too). Of what runs a VM that is made
--- with this `accel`, as luna.vm takes it; nil, message, code where that cannot be asked.
function luna.capability(name, accel)
  check.name("luna.capability", name, "a name")
  local number = accels.number("luna.capability: accel", accel)
  return check.result(raw.capability(number, name))
end

--- How many objects of each kind exist in this process, collected or not: vm, space, buffer, vcpu.
function luna.live()
  return { vm = raw.live(0), space = raw.live(1), buffer = raw.live(2), vcpu = raw.live(3) }
end

--- Whether the tracebacks of errors in devices, handlers and timers have the library's own frames
--- too; with true or false, says so. Returns what was said before.
function luna.debug(on)
  check.flag("luna.debug", on)
  return trace.debug(on)
end

--- Seconds of the monotonic clock.
function luna.clock()
  return raw.clock() / 1e9
end

return class.strict("luna", luna)
