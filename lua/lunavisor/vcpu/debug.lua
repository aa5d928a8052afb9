-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: breakpoints, single steps, and runs to an address.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local keep = require "lunavisor.keep"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"
local dispatch = require "lunavisor.exit.dispatch"
local exits = require "lunavisor.exit.record"
local tracing = require "lunavisor.exit.trace"
local limits = require "lunavisor.vm.limit"
local mode = require "lunavisor.vcpu.mode"
local open = class.opener(class.class "vcpu")

local EXECUTE, WRITE, ACCESS, SOFTWARE = 0, 1, 2, 3 -- luna_break_kind
local DEBUG = exits.numbers.debug

local Breakpoint = class.class "breakpoint"
local mine = class.checker(Breakpoint)
local point = {}

-- By vCPU, by number; made with the first breakpoint.
local function numbered(cpu)
  local list = rawget(cpu, "breakpoints")
  if not list then
    list = {}
    rawset(cpu, "breakpoints", list)
  end
  return list
end

--- Takes the breakpoint away. Doing it twice is fine, and so is doing it in its own handler; not
--- while the vCPU is started and in the guest.
function point.close(self)
  mine(self)
  if self.closed or not self.number then return true end
  local cpu = self.cpu
  if cpu[1] and cpu.breakpoints[self.number] == self then
    local ok, message, code = raw.break_clear(cpu, self.number)
    -- An error may have come here before: then the core has none any more.
    if not ok and code ~= "not_found" then return check.result(nil, message, code) end
    cpu.breakpoints[self.number] = nil
  end
  self.closed = true
  return true
end

class.define(Breakpoint, point, "address access software size hits closed handler",
  "cpu number temporary")
Breakpoint.__close = point.close

function Breakpoint.__tostring(self)
  return ("%s breakpoint at %s (%d hit%s)%s"):format(self.software and "software" or self.access,
    u64.hex(self.address), self.hits, self.hits == 1 and "" or "s",
    self.closed and ", closed" or "")
end

-- ---- Exits ----

--- Fills a debug exit; the breakpoint's object counts what it has met.
function exits.fields.debug(exit, e, cpu)
  local number, dr6 = raw.break_met(cpu)
  exit.address, exit.dr6 = e.address, dr6
  local list = number ~= 0 and rawget(cpu, "breakpoints")
  local breakpoint = list and list[number]
  if not breakpoint then return end
  breakpoint.hits = breakpoint.hits + 1
  if breakpoint.temporary then
    exit.reached = true
  else
    exit.breakpoint = breakpoint
  end
end

function exits.texts.debug(exit)
  if exit.reached then return "the address of the run" end
  return exit.breakpoint and tostring(exit.breakpoint) or "single step"
end

-- The exit of a run that ended without one: the vCPU stands at `address`.
local function standing(cpu, address)
  return exits.make({ kind = "debug", reason = 0, rip = cpu.rip, address = address, dr6 = 0,
    cpu = cpu, space = cpu.space, serial = cpu.exits })
end

-- ---- Breakpoints ----

local break_options = { size = true, access = true, software = true }
local kinds = { x = EXECUTE, w = WRITE, rw = ACCESS }

local function set(cpu, kind, gva, size, made)
  local list = numbered(cpu)
  return keep(function(number)
    list[number] = nil
    if cpu[1] then raw.break_clear(cpu, number) end
  end, function(number)
    made.number, made.cpu, made.address, made.hits = number, cpu, gva, 0
    made.software, made.closed = kind == SOFTWARE, false
    list[number] = setmetatable(made, Breakpoint)
    return made
  end, raw.break_set, cpu, kind, gva, size)
end

-- In a debug register where the host's KVM stops there and one is free, else in software.
local function set_either(cpu, gva, made)
  local found, message, code = set(cpu, EXECUTE, gva, 1, made)
  if found or (code ~= "unsupported" and code ~= "limit") then return found, message, code end
  local software, why = set(cpu, SOFTWARE, gva, 1, made)
  if software then return software end
  return nil, message .. "; and " .. tostring(why), code
end

local function check_kind(access, software, size)
  local kind = kinds[access]
  if not kind then
    error(("cpu:breakpoint: access: \"x\", \"w\" or \"rw\" expected, got %s")
      :format(type(access) == "string" and ("%q"):format(access) or type(access)), 3)
  end
  if kind ~= EXECUTE and software then
    error("cpu:breakpoint: a software breakpoint is for access \"x\" only", 3)
  end
  if kind == EXECUTE and size ~= 1 then
    error("cpu:breakpoint: size is for access \"w\" and \"rw\" only", 3)
  end
  return software and SOFTWARE or kind
end

-- ---- Stepping ----

local step_options = { timeout = true }
local trace_options = { timeout = true, count = true }
local MANY = 2 ^ 53

local function steps(cpu, limit, loop, count)
  local exit, message, code
  for _ = 1, count do
    exit, message, code = loop(cpu, limit, raw.step)
    if not exit or exit.kind ~= "debug" or exit.breakpoint then return exit, message, code end
  end
  return exit
end

local function trace(cpu, limit, inner, fn, count)
  local exit, message, code
  for _ = 1, count do
    local address, problem, why = raw.place(cpu)
    if not address then return nil, problem, why end
    local stop = fn(cpu, address) == "stop"
    if cpu.stopping then return inner.stopped(cpu) end
    if stop then return standing(cpu, address) end
    exit, message, code = inner.loop(cpu, limit, raw.step)
    if not exit or exit.kind ~= "debug" or exit.breakpoint then return exit, message, code end
  end
  return exit
end

-- ---- Running to an address ----

local function run_to(cpu, limit, inner, gva, enter)
  local wanted = setmetatable({ access = "x", temporary = true }, Breakpoint)
  cpu.temporary = wanted -- before it is set: an error in between leaves none that nobody knows
  local breakpoint, message, code = set_either(cpu, gva, wanted)
  if not breakpoint then
    cpu.temporary = false
    return nil, message, code
  end
  local ok, exit, problem, why = xpcall(inner.loop, tracing.back, cpu, limit, enter)
  cpu.temporary = false
  breakpoint:close()
  if not ok then error(exit, 0) end
  return exit, problem, why
end

-- With paging, any number of linear addresses may lead there: every instruction is looked at.
local function step_to(cpu, limit, loop, gpa)
  while true do
    local exit, message, code = loop(cpu, limit, raw.step)
    if not exit or exit.kind ~= "debug" or exit.breakpoint then return exit, message, code end
    local _, at = raw.place(cpu, true)
    if at == gpa then
      rawset(exit, "reached", true)
      return exit
    end
  end
end

local function run_until(cpu, limit, inner, options, enter)
  if options.until_rip ~= nil then
    return run_to(cpu, limit, inner, mode.linear(cpu, u64.exact(options.until_rip)), enter)
  end
  local gpa = options.until_gpa
  if mode.pages(cpu) then return step_to(cpu, limit, inner.loop, gpa) end
  return run_to(cpu, limit, inner, u64.exact(gpa), enter)
end

return function(methods, _readers, _writers, inner)
  --- Stops the guest at a linear address, before the instruction there is executed, or with access
  --- "w" or "rw" after `size` bytes there (1, 2, 4 or 8, aligned) were written or accessed: exit
  --- kind "debug", with the object as exit.breakpoint. fn(cpu, exit), if given, answers the exit in
  --- place of cpu:on("debug"). `software` true puts INT3 in guest memory while the guest runs,
  --- false takes one of the processor's four debug registers; nil takes whichever stops the guest
  --- here. A run that begins where the last exit has reported the vCPU to stand executes that
  --- instruction first. Returns an object with `address`, `access`, `software`, `hits` and
  --- :close(), which belongs to the vCPU in every space; nil, message, code where none is free or
  --- this host's KVM would not stop there.
  function methods.breakpoint(self, gva, options, fn)
    open(self)
    if fn == nil and options ~= nil and type(options) ~= "table" then options, fn = nil, options end
    options = check.options("cpu:breakpoint", options, break_options)
    gva = check.exact("cpu:breakpoint: address", gva)
    if fn ~= nil then check.callable("cpu:breakpoint: handler", fn) end
    local access = options.access or "x"
    local size = check.whole("cpu:breakpoint: size", options.size or 1, 1, 8)
    local software = check.flag("cpu:breakpoint: software", options.software)
    local kind = check_kind(access, software, size)
    local made = { access = access, size = size, handler = fn }
    if kind == EXECUTE and options.software == nil then
      return check.result(set_either(self, gva, made))
    end
    return check.result(set(self, kind, gva, size, made))
  end

  --- Runs `count` instructions (1 by default), through devices and handlers as cpu:run does, and
  --- returns the exit "debug"; or the exit that came before. An access to a port or a device is
  --- finished within its step. HLT is the exit "hlt". options.timeout in seconds.
  function methods.step(self, count, options)
    open(self)
    if type(count) == "table" then count, options = nil, count end
    count = check.whole("cpu:step: count", count or 1, 1)
    options = check.options("cpu:step", options, step_options)
    local deadline = limits.deadline("cpu:step", options)
    return inner.protect(self, "cpu:step", deadline, steps, inner.loop, count)
  end

  --- Calls fn(cpu, address) with the linear address of every instruction, before it runs, until fn
  --- returns "stop" (exit "debug"), an exit surfaces, or options.count instructions are done.
  --- options.timeout in seconds. Returns the exit.
  function methods.trace(self, fn, options)
    open(self)
    check.callable("cpu:trace", fn)
    options = check.options("cpu:trace", options, trace_options)
    local count = check.whole("cpu:trace: count", options.count or MANY, 1)
    local deadline = limits.deadline("cpu:trace", options)
    return inner.protect(self, "cpu:trace", deadline, trace, inner, fn, count)
  end

  --- cpu:run's until_rip and until_gpa.
  function inner.run_until(self, deadline, options, enter)
    if options.until_rip == nil then
      check.whole("cpu:run: until_gpa", options.until_gpa, 0)
    elseif options.until_gpa == nil then
      check.exact("cpu:run: until_rip", options.until_rip)
    else
      error("cpu:run: until_rip or until_gpa expected, not both", 2)
    end
    return inner.protect(self, "cpu:run", deadline, run_until, inner, options, enter)
  end

  --- Who answers a debug exit; nil where it ends the run.
  function dispatch.debug_handler(self, exit, enter)
    local breakpoint = exit.breakpoint
    if breakpoint and breakpoint.handler then return breakpoint.handler end
    if exit.reached or (enter == raw.step and not breakpoint) then return nil end
    return self.handlers[DEBUG]
  end
end
