-- SPDX-License-Identifier: MIT
-- A PC that boots the image of a floppy disk: bootsectors_vm BIOS VGABIOS IMAGE ACCEL SCREENSHOT
-- MOST WAIT TYPE COLOURS WIDTH TEXTS [SECOND]. SECOND is for the second drive. Types the text when
-- the screen has the pattern WAIT; ends when it has so many colours, where that is not 0 is so
-- wide, and has the patterns TEXTS, which "\1" separates, or after MOST seconds; prints the screen.
-- On KVM interrupt controllers and timer are devices, for which time passes while the guest runs,
-- and at once while it halts: a KVM that emulates the code of ring 0 takes none of its own
-- interrupts in the short moments in which SeaBIOS lets one come as it waits for a floppy disk.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local device = require "lunavisor.device"
local luna = require "lunavisor"
local pcs = require "pc"
local picture = require "picture"
local process = require "process"

local on_kvm = arg[4] == "kvm"
local SLICE, LOOK = on_kvm and 0.005 or 0.1, on_kvm and 0.2 or 0.5 -- seconds

local clock = on_kvm and device.clock() or nil
local deadline = luna.clock() + tonumber(arg[6])
local wait, text, colours, width = arg[7], arg[8], tonumber(arg[9]), tonumber(arg[10])
local vm = pcs.new { accel = arg[4], memory = "16M", irqchip = on_kvm and "pic" or "kernel",
  clock = clock, bios = arg[1],
  floppy = { image = arg[3], copy = true }, serial = false,
  devices = { vga = { rom = process.read(arg[2]) },
    floppy = { drive1 = arg[12] and { image = arg[12], copy = true } } } }
local cpu, screen = vm.vcpus[1], vm.devices.vga

local function shown() return table.concat(screen:text(), "\n"):gsub(" +\n", "\n") .. "\n" end

local function shows_all()
  if colours > 0 then
    assert(screen:screenshot(arg[5]))
    if not picture.fits(picture.of_png(process.read(arg[5])), width, colours) then return false end
  end
  local all = shown()
  for pattern in arg[11]:gmatch "[^\1]+" do
    if not all:find(pattern) then return false end
  end
  return true
end

local function take_interrupt()
  local pic = vm.devices.pic
  while not pic.lines.int do clock:advance(0.001) end
  cpu:window(false)
  cpu:irq(pic:acknowledge())
end

-- Runs it until done() is true; whether it was before the time was up.
local function run(done)
  local before = luna.clock()
  local look = before + LOOK
  while before < deadline do
    local exit = assert(cpu:run { timeout = SLICE })
    if exit.kind == "hlt" then
      take_interrupt()
    elseif exit.kind ~= "timeout" then
      print(exit)
      return false
    end
    local now = luna.clock()
    if clock then clock:advance(now - before) end
    before = now
    if now >= look then
      if done() then return true end
      look = now + LOOK
    end
  end
  return false
end

local came = wait == "" or run(function() return shown():find(wait) end)
if came then
  vm.devices.keyboard:type(text)
  came = run(shows_all)
end
print(shown())
assert(screen:screenshot(arg[5]))
os.exit(came and 0 or 1, true)
