-- SPDX-License-Identifier: MIT
-- luna boot's run: until the guest ends, the time is up or the last text has come; and which status
-- that is, with a line that says why where it is not the guest's own.

local consoles = require "lunavisor.program.console"
local say = require "lunavisor.program.say"
local clock = require("lunavisor.binding.backend").clock

local M = {}

local SLICE = 0.25 -- seconds from one look at whether it has halted for good to the next
local LOOK = 0.1   -- at the screen
local PANIC, LAST_WORDS = "Kernel panic - not syncing", 1

local function now() return clock() / 1e9 end

--- The guest has sent something.
function M.said(console, text)
  console.put(text)
  if console.script then console.script:said(text) end
  console.tail = ((console.tail or "") .. text):sub(-80)
  if not console.panic and console.tail:find(PANIC, 1, true) then
    console.panic = true
    if console.vm then console.vm:timer(LAST_WORDS, function() console.vm:stop "panic" end) end
  end
end

local function add_script(vm, console, options)
  local pc = options.machine == "pc"
  console.script = consoles.script(options.steps or {}, {
    send = function(text) vm.devices.com1:feed(text) end,
    type = function(text) vm.devices.keyboard:type(text) end,
    done = function() vm:stop "waited" end,
  })
  console.script:go()
  if not pc or not console.script:waiting() then return end
  vm:timer(LOOK, function()
    console.script:seen(table.concat(vm.devices.vga:text(), "\n"))
  end, { period = LOOK })
end

-- A line of digits on the second serial port is the status that the run has when the guest ends: so
-- that a guest can tell it that has no way to ports but drivers.
local function add_status(vm, console)
  local text = ""
  local port = require "lunavisor.device.models.uart16550" { log = false, output = function(char)
    text = (text .. char):sub(-8)
    console.status = tonumber(text:match "(%d+)\r?\n$") or console.status
  end }
  vm:attach(port, { name = "com2", pio = 0x2f8, irq = 3 })
end

local function is_stuck(exit)
  if exit.stuck then return true end
  for _, place in ipairs(exit.vcpus or {}) do
    if not (place.stuck or place.waits) then return false end
  end
  return exit.vcpus ~= nil and #exit.vcpus > 0
end

-- Lets gdb have the guest; whether it goes on without.
local function debug_with(server)
  local ending = server:serve()
  return ending ~= "killed" and ending ~= "closed"
end

-- Runs until an exit that is no mere end of a slice; "late" where the time is up, "killed" where
-- gdb has ended it.
local function run(vm, deadline, server)
  local runner = #vm.vcpus == 1 and vm.vcpus[1] or vm
  while true do
    local left = deadline and math.max(0, deadline - now()) or SLICE
    local exit, message = runner:run { timeout = math.min(left, SLICE) }
    if not exit then return nil, message end
    if server and exit.kind == "stopped" and exit.value == server then
      if not debug_with(server) then return exit, "killed" end
    elseif exit.kind ~= "timeout" then
      return exit
    end
    if is_stuck(exit) then return exit, "stuck" end
    if deadline and now() >= deadline then return exit, "late" end
  end
end

-- The status of a value that the run was stopped with; nil where it is none of the guest's.
local function status_of(value, console)
  if type(value) == "number" then return value % 256 end
  if value == "panic" or value == "reset" and console.panic then
    say.line "the guest's kernel has panicked"
    return say.CRASH
  end
  return value ~= "waited" and console.status and console.status % 256 or 0
end

-- What --on-panic gives the guest to when it cannot go on: gdb, or a prompt.
local hands = {}

function hands.gdb(vm)
  local server, message = vm:gdb { port = 0 }
  if not server then return say.line("%s", message) end
  say.line("waiting for gdb: target remote :%d", server.port)
  server:serve()
  server:close()
end

function hands.repl(vm, exit)
  require("lunavisor").repl { vm = vm, cpu = exit.cpu or vm.vcpus[1], exit = exit }
end

local function hand_over(vm, exit, options)
  local hand = hands[options.on_panic]
  if hand and vm[1] and #vm.vcpus > 0 then hand(vm, exit) end
  return say.CRASH
end

local function crash(vm, exit)
  say.line("the guest cannot go on: %s", tostring(exit))
  if exit.kind == "instruction" and vm.accel == "kvm"
    and require("lunavisor").probe().accelerators.soft.available then
    say.line "the software CPU may have that instruction: --accel soft"
  end
  say.post_mortem(exit)
  return say.CRASH
end

local function judge(exit, why, console, options)
  if not exit then
    say.line("the guest cannot go on: %s", tostring(why))
    return say.CRASH
  end
  if why == "killed" then return 0 end
  if why == "late" then
    say.line("the guest has not ended within %g s: %s", options.timeout, tostring(exit))
    say.post_mortem(exit)
    return say.TIMEOUT
  end
  local halted = why == "stuck" or exit.kind == "hlt" or exit.kind == "parked"
  if exit.kind ~= "stopped" and not halted then return crash(console.vm, exit) end
  local status = status_of(not halted and exit.value or nil, console)
  local wanted = console.script:waiting()
  if not wanted or exit.value == "waited" then return status end
  say.line("the guest ended, and %q has not come", wanted)
  return status == 0 and 1 or status
end

--- Runs the machine; returns the status.
function M.run(vm, console, options)
  console.vm = vm
  if options.machine ~= "bare" then
    console:connect(vm)
    add_status(vm, console)
  end
  add_script(vm, console, options)
  local server, message
  if options.gdb then
    server, message = vm:gdb { port = options.gdb }
    if not server then return say.cannot("%s", message) end
    say.line("waiting for gdb: target remote :%d", server.port)
    if not debug_with(server) then return 0 end
  end
  local exit, why = run(vm, options.timeout and now() + options.timeout, server)
  local status = judge(exit, why, console, options)
  if status == say.CRASH then return hand_over(vm, exit, options) end
  return status
end

return M
