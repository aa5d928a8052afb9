-- SPDX-License-Identifier: MIT
-- luna boot: an image on a machine, until it ends. The image may be all that luna.load knows.

local consoles = require "lunavisor.program.console"
local finding = require "lunavisor.program.image"
local pace = require "lunavisor.program.pace"
local reload = require "lunavisor.deferred" "lunavisor.program.reload"
local say = require "lunavisor.program.say"
local trace = require "lunavisor.exit.trace"
local values = require "lunavisor.deferred" "lunavisor.program.values"
local watch = require "lunavisor.program.watch"
local watching = require "lunavisor.program.watching"

local M = { about = "Boot a kernel, a disk image or firmware." }

local EPILOG = [[
Examples:
  luna boot kernel.elf -m 64M -c 2
  luna boot vmlinuz --initrd initrd.img --timeout 60 -- /bin/uname -a
  luna boot disk.img --wait-for "login:" --send "root\n" --wait-for "#"
  luna boot --floppy sector.bin --accel soft --timeout 10
  luna boot kernel.elf --console serial.log --timeout 5 --report boot.html
  luna boot kernel.elf --device adder.lua --watch --on-panic gdb

Steps (--wait-for, --send, --type) are done in their order; the run ends behind
a last --wait-for. What is behind -- is put behind the command line.]]

local function step(kind)
  return function(args, _, text)
    args.steps = args.steps or {}
    table.insert(args.steps, { kind = kind, text = consoles.unescape(text) })
  end
end

-- Most boots have no such option, or 1 vCPU, and begin without the module.
local function cpus(text)
  if text == "1" then return 1 end
  return values.whole("--cpus", 1)(text)
end

local function seconds(text) return values.seconds(text) end

local function port(text) return values.port(text) end

function M.describe(command)
  command:argument("image", "The image: ELF, multiboot, Linux, PVH, a disk, a BIOS;\n"
    .. "or a file.asm for nasm: 32-bit code."):args "?"
  command:option("-m --memory", "A size, such as 64M or 2G.", "128M"):argname "SIZE"
  command:option("-c --cpus", "How many vCPUs.", "1"):argname "N"
    :convert(cpus)
  command:option("--machine", "pc, microvm or bare.", "pc"):choices { "pc", "microvm", "bare" }
  command:option("--accel", "What runs it: kvm, soft or auto."):choices { "kvm", "soft", "auto" }
  command:option("--disk", "The first disk."):argname "FILE"
  command:option("--floppy", "The first floppy disk; booted where there is no image.")
    :argname "FILE"
  command:option("--initrd", "What Linux or a PVH kernel has with it."):argname "FILE"
  command:option("--cmdline", "The command line."):argname "TEXT"
  command:option("--bios", "Firmware for a disk image, or none; SeaBIOS where it is installed.")
    :argname "FILE"
  command:option("--format", "What the image is, where its bytes do not say."):argname "NAME"
  command:option("--console", "Where the serial port ends: stdio, pty or a file.", "stdio")
    :argname "WHERE"
  command:option("--timeout", "Seconds until status 124."):convert(seconds):argname "SECONDS"
  command:option("--gdb", "Wait for gdb on this port of 127.0.0.1, 0 for a free one.")
    :argname "PORT":convert(port)
  command:option("--device", "A device of yours: a file that returns { device, pio = 0x300 }.")
    :argname "FILE":count "*"
  command:option("--on-panic", "Who gets a guest that cannot go on: exit, gdb or repl.", "exit")
    :choices { "exit", "gdb", "repl" }
  command:option("--screenshot", "Where its screen is written at the end, as PNG."):argname "FILE"
  command:option("--wait-for", "Wait for a text on the serial port or the screen."):argname "TEXT"
    :count "*":action(step "wait")
  command:option("--send", "Send a text to the serial port; \\n is a line feed."):argname "TEXT"
    :count "*":action(step "send")
  command:option("--type", "Type a text on the keyboard."):argname "TEXT"
    :count "*":action(step "type")
  watching.describe(command)
  command:epilog(EPILOG)
end

-- ---- Making it ----

-- Attaches the devices of the files, each of which returns { device, pio =, mmio =, lines }, as
-- vm:attach takes them. nil, message.
local function add_devices(vm, files)
  for _, path in ipairs(files) do
    local dev, place = reload.load(path)
    if not dev then return nil, "--device: " .. place end
    local options = {}
    for key, value in pairs(place) do if key ~= 1 then options[key] = value end end
    if not options.pio and not options.mmio then
      return nil, ("--device: %s: no place is said: return { device, pio = port } or "
        .. "{ device, mmio = address } expected"):format(path)
    end
    local ok, made, message = pcall(vm.attach, vm, dev, options)
    if not ok or not made then
      return nil, ("--device: %s: %s"):format(path, say.plain(ok and message or made))
    end
  end
  return true
end

local function machine_of(options, found, console)
  local made = { memory = options.memory, cpus = options.cpus, accel = options.accel,
    image = found.image, load = found.load }
  if options.machine ~= "bare" then made.serial = console.output end
  if options.machine == "pc" then
    made.bios, made.disk, made.floppy = found.bios, found.disk, found.floppy
    made.debug = false
    made.devices = { vga = found.rom and { rom = found.rom } or nil }
  end
  local ok, vm, message = pcall(require("lunavisor").machine, options.machine, made)
  if ok and vm then
    ok, message = add_devices(vm, options.device or {})
    if ok then return vm end
    vm:close()
    return nil, message
  end
  return nil, (say.plain(ok and message or vm):gsub("^luna%.%l+[%l ]*: ", ""))
end

local function screenshot(vm, options)
  if not options.screenshot then return true end
  return vm.devices.vga:screenshot(options.screenshot)
end

-- The guest's status, but where that is 0 the one of what could not be written.
local function worse(status, other)
  return status == 0 and other or status
end

local function conclude(vm, options, status)
  local ok, message = screenshot(vm, options)
  if ok then return status end
  say.line("%s", tostring(message))
  return worse(status, 1)
end

local ENDS = { [0] = "The guest has ended, status 0.",
  [say.TIMEOUT] = "The time of --timeout was up: status 124.",
  [say.CRASH] = "The guest could not go on: status 125.",
  [say.CANNOT] = "It could not be run: status 126." }

-- Runs the machine; what looks at the run has its end also where that raises, as Ctrl-C makes it.
local function run_machine(vm, console, options, session)
  local ok, status = xpcall(function()
    return conclude(vm, options, watch.run(vm, console, options))
  end, trace.back)
  local outcome = watching.outcome(ok, status, status,
    ok and (ENDS[status] or ("The guest has ended with status %d."):format(status)))
  local failed = session:finish(nil, outcome)
  if ok then return worse(status, failed) end
  say.line("%s", outcome.status == say.INTERRUPTED and "interrupted" or tostring(status))
  return outcome.status
end

-- Whether a file can be written is better known before the guest has run. nil, message.
local function check_screenshot(path)
  if not path then return true end
  local file, message = io.open(path, "ab")
  if not file then return nil, "--screenshot: " .. message end
  return file:close()
end

--- The status: the guest's, where it writes one to port 0xf4; 0 where it turns itself off, resets
--- or halts for good, or where the last text came that was waited for; 1 where it ended before;
--- 124, 125, 126 as the program has them; 130 at Ctrl-C.
function M.run(options)
  local console, problem, vm, found
  pace.start()
  found, problem = finding.find(options)
  if not found then return say.cannot("%s", problem) end
  local ok
  ok, problem = check_screenshot(options.screenshot)
  if not ok then return say.cannot("%s", problem) end
  console, problem = consoles.new(options.console)
  if not console then return say.cannot("%s", problem) end
  console.output = function(text) watch.said(console, text) end
  local session, status
  session, problem = watching.begin(options)
  if session then vm, problem = machine_of(options, found, console) end
  pace.run()
  if vm then
    status = run_machine(vm, console, options, session)
    vm:close()
  else
    if session then session:finish(nil, { status = say.CANNOT, text = ENDS[say.CANNOT],
      detail = tostring(problem) }) end
    status = say.cannot("%s", problem)
  end
  console:close()
  return status
end

return M
