-- SPDX-License-Identifier: MIT
-- A guest as a fixture: a VM with memory, a vCPU, devices and a console, closed after the test,
-- with a deadline for each run.

local class = require "lunavisor.class"
local consoles = require "lunavisor.testing.console"
local device = require "lunavisor.device"
local failures = require "lunavisor.testing.fail"
local luna = require "lunavisor"
local report = require "lunavisor.testing.report"
local screens = require "lunavisor.testing.screen"
local sorted = require "lunavisor.text.sorted"
local symbols = require "lunavisor.text.symbols"

local M = {}

local Guest = class.class "guest"
local mine = class.checker(Guest)
local methods = {}

local TIMEOUT = 10 -- seconds; no test's guest has this much to do

-- ---- Running ----

--- Lets the guest run, as cpu:run, within its deadline: one that does not stop by itself fails the
--- test and says where it is, unless the call has a timeout or deadline of its own. Returns the
--- exit.
function methods.run(self, options)
  mine(self)
  local all = { timeout = self.timeout }
  for name, value in pairs(options or {}) do all[name] = value end
  if all.deadline then all.timeout = nil end
  local exit, message = self.cpu:run(all)
  if not exit then failures.fail("the guest cannot run: " .. tostring(message)) end
  self.exit = exit
  local meant = options and (options.timeout or options.deadline)
  if exit.kind == "timeout" and not meant then
    failures.fail(report.text(self, ("the guest does not stop within %g s"):format(self.timeout)))
  end
  return exit
end

--- Lets it run until it stops with an exit of the kind. Returns the exit.
function methods.stops(self, kind, options)
  mine(self)
  local exit = self:run(options)
  if exit.kind ~= kind then
    failures.fail(report.text(self, ("exit %s expected, got %s"):format(kind, tostring(exit))))
  end
  return exit
end

--- Lets it run until it has printed the text, behind what was waited for before: the run ends at
--- the write that completes it. Returns the guest.
function methods.prints(self, text, options)
  mine(self)
  if not self.console then error("guest:prints: this guest has no console", 2) end
  if type(text) ~= "string" or text == "" then
    error(("guest:prints: a text expected, got %s"):format(class.describe(text)), 2)
  end
  local there = consoles.want(self.console, text)
  local ok, exit = true, nil
  if not there then
    ok, exit = pcall(self.cpu.run, self.cpu, options or { timeout = self.timeout })
  end
  local came = consoles.take(self.console)
  consoles.want(self.console, false)
  if not ok then error(exit, 0) end
  if not came then
    failures.fail(report.text(self, ("the guest has not printed %q: %s"):format(text,
      tostring(exit))))
  end
  self.exit = exit or self.exit
  return self
end

--- Gives back the VM and its memory. Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.vm then self.vm:close() end
  if self.ram then self.ram:close() end
end

class.define(Guest, methods, "vm ram cpu console screen exit labels devices timeout bits",
  "source")

function Guest.__tostring(self)
  return ("guest (%s)"):format(self.exit and tostring(self.exit) or "not run yet")
end

-- ---- Making one ----

local known = {
  mode = true, memory = true, devices = true, accel = true, org = true, rsp = true, timeout = true,
  console = true, registers = true, vm = true, binary = true, clock = true,
}
local modes = { reset = 16, real = 16, protected = 32, long = 64, user = 64 }

local function check_options(source, options)
  if type(source) ~= "string" then
    error(("t.guest: assembly source, a string, expected, got %s"):format(class.describe(source)),
      3)
  elseif options ~= nil and type(options) ~= "table" then
    error(("t.guest: a table of options expected, got %s"):format(class.describe(options)), 3)
  end
  for key in pairs(options or {}) do
    if not known[key] then
      local near = class.hint(key, known)
      error(("t.guest: unknown option '%s'%s"):format(tostring(key), near ~= "" and near
        or "; the options are " .. table.concat(sorted(known), ", ")), 3)
    end
  end
  local mode = options and options.mode or "real"
  if not modes[mode] then
    error(("t.guest: mode: one of long, protected, real, reset, user expected, got %s"):format(
      tostring(mode)), 3)
  end
  return options or {}, mode
end

-- The region of a bus at a place.
local function add_bus(vm, bus, options)
  for _, kind in ipairs { "pio", "mmio" } do
    local places = options[kind]
    if type(places) == "number" then places = { [bus.first or 1] = places } end
    for name, first in pairs(places or {}) do
      local region = bus:region(bus.first and name or nil)
      assert(vm[kind](vm, first, region.size or options.size or 1, region))
    end
  end
  for name, target in pairs(options) do
    if bus.wires[name] then
      bus:line(name):connect(type(target) == "number" and vm:line(target) or target)
    end
  end
  return bus.device
end

-- A device by the entry { device, pio = port or mmio = gpa, ... }: of the kit as vm:attach takes
-- it, by hand with its size.
local function add_device(vm, entry)
  local options, dev = {}, entry[1]
  for key, value in pairs(entry) do if key ~= 1 then options[key] = value end end
  if class.of(dev) == "bus" then return add_bus(vm, dev, options) end
  if device.is(dev) then return assert(vm:attach(dev, options)) end
  if type(dev) == "table" and (options.pio or options.mmio) then
    for _, kind in ipairs { "pio", "mmio" } do
      if options[kind] then assert(vm[kind](vm, options[kind], options.size or 1, dev)) end
    end
    return dev
  end
  error(("t.guest: devices: { device, pio = port or mmio = gpa } expected, got %s"):format(
    class.describe(dev)), 4)
end

local function vm_of(options)
  local all = {}
  for key, value in pairs(options.vm or {}) do all[key] = value end
  all.accel, all.clock = options.accel or all.accel, options.clock or all.clock
  local vm, message = luna.vm(all)
  if not vm then
    local busted = failures.busted()
    if busted then busted.pending("no VM: " .. message) end
    error("t.guest: " .. message, 0)
  end
  return vm
end

-- Machine code at an address, and its labels.
local function code_of(source, options, mode, org)
  if options.binary then return source, symbols.new {} end
  local ok, code, labels = pcall(luna.asm, source, { bits = modes[mode], org = org })
  if not ok then error("t.guest: " .. code:gsub("^[^\n]-:%d+: ", ""), class.outside()) end
  if not code then error("t.guest: " .. labels, 0) end
  return code, labels
end

--- A guest of assembly source, ready to run, that is closed after the test. options: mode ("real"
--- where nil), memory (its size, from gpa 0, "1M"), org (where the code is, and where it begins,
--- 0x1000), rsp (0x8000), registers (their values by name), devices (a list of { device, pio = or
--- mmio = address, ... }, as vm:attach takes it; for a device by hand with its size), console (a
--- port, 0xe9 where nil; false: none), timeout (seconds of each run, 10), accel, clock and vm
--- (options of luna.vm), binary (the source is machine code). Where the host has no VM the test is
--- pending.
function M.new(source, options)
  local mode
  options, mode = check_options(source, options)
  local org = options.org or 0x1000
  local code, labels = code_of(source, options, mode, org)
  local self = setmetatable({ timeout = options.timeout or TIMEOUT, labels = labels, devices = {},
    bits = modes[mode], exit = false, console = false, source = source }, Guest)
  self.vm = vm_of(options)
  self.vm.symbols = labels
  failures.keep(self)
  self.ram = assert(luna.buffer(options.memory or "1M"))
  assert(self.vm.default:map(self.ram, 0))
  self.ram:write(org, code)
  self.screen = screens.new(self.vm.default)
  if options.console ~= false then
    self.console = consoles.new(self)
    assert(self.vm:pio(options.console or 0xe9, 1, consoles.port(self.console)))
  end
  for i, entry in ipairs(options.devices or {}) do self.devices[i] = add_device(self.vm, entry) end
  self.cpu = assert(self.vm:vcpu { mode = mode, rip = org, rsp = options.rsp or 0x8000 })
  for name, value in pairs(options.registers or {}) do self.cpu[name] = value end
  return self
end

M.class = Guest

return M
