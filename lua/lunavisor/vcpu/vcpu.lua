-- SPDX-License-Identifier: MIT
-- A vCPU: how it is made, its handlers and answers, its registers as fields, and what the further
-- files of this room add.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"
local cpuid = require "lunavisor.deferred" "lunavisor.vcpu.cpuid"
local exits = require "lunavisor.exit.record"
local registers = require "lunavisor.vcpu.registers"
local spaces = require "lunavisor.memory.space"
local dispatch = require "lunavisor.exit.dispatch"
local run = require "lunavisor.vcpu.run"
local runner = require "lunavisor.vm.runner"

local raw_answer = raw.answer
local type, error = type, error

local VCPU = class.class("vcpu", "cpu")
local mine, open = class.checker(VCPU), class.opener(VCPU)
local methods = {} -- of cpu objects
local inner = {} -- what the further subjects share

local modes = { reset = 0, real = 1, protected = 2, long = 3, user = 4 } -- luna_mode
local known_options = {
  mode = true, rip = true, rsp = true, system = true, wait = true, cpuid = true, registers = true,
}
local NO_FPU, NO_MSRS = 1, 2 -- luna_move_flag

local function check_mode(mode)
  local number = modes[mode]
  if not number then
    error(("vm:vcpu: mode: 'real', 'protected', 'long', 'user' or 'reset' expected, got %s")
      :format(type(mode) == "string" and ("%q"):format(mode) or type(mode)), 3)
  end
  return number
end

local function check_register(what, value)
  return check.exact(what, value == nil and 0 or value)
end

-- Puts a vCPU into the list of its VM, which holds it until it or the VM is closed.
local function join(list, cpu)
  local place = #list + 1
  while place > 1 and list[place - 1].id > cpu.id do place = place - 1 end
  table.insert(list, place, cpu)
end

local function leave(list, cpu)
  for i, one in ipairs(list) do
    if one == cpu then return table.remove(list, i) end
  end
end

-- What the options say that only a vCPU that is there can be told.
local function begin(self, options)
  if options.registers ~= nil then registers.assign(self, options) end
  if options.cpuid ~= nil then return cpuid.begin(self, options.cpuid) end
  return true
end

--- vm:vcpu{ mode, rip, rsp, system, wait, cpuid, registers }. The modes:
---   "real"       16-bit real mode, segments at 0 (the default)
---   "protected"  32-bit protected mode, flat segments, no paging
---   "long"       64-bit ring 0, the first 4 GiB mapped one to one
---   "user"       64-bit ring 3, the same; every port allowed; runs at the host's own speed
---   "reset"      as the processor comes out of RESET, at 0xfffffff0
--- From "protected" on, descriptor tables, page tables and exception stubs lie in 64 KiB of guest
--- memory at `system` (a multiple of 64 KiB in mapped, writable memory below 4 GiB), or where nil
--- in memory that the library maps for it. With `wait`, and in mode "reset" with a number above 0,
--- a vCPU with a LAPIC in KVM begins when another has sent it INIT and SIPI. `cpuid`, a function
--- for cpu.cpuid:filter or a list of answers, changes what CPUID answers. `registers` are further
--- ones by name, segments as tables of their fields: { rax = 1, ds = { base = 0x10000 } }.
local function new(vm, options)
  options = check.options("vm:vcpu", options, known_options)
  local mode = check_mode(options.mode or "real")
  local rip, rsp = check_register("vm:vcpu: rip", options.rip),
    check_register("vm:vcpu: rsp", options.rsp)
  local system, answers, more = options.system, options.cpuid, options.registers
  if answers ~= nil and type(answers) ~= "table" and type(answers) ~= "function" then
    error(("vm:vcpu: cpuid: a function or a list of answers expected, got %s")
      :format(type(answers)), 2)
  end
  if more ~= nil then registers.check("vm:vcpu: registers", more) end
  if system then system = check.whole("vm:vcpu: system", system, 0) end
  local wait = check.flag("vm:vcpu: wait", options.wait) and 1 or 0
  local handle, message, code = check.again(raw.vcpu_create, vm, mode, rip, rsp, system,
    wait)
  if not handle then return check.result(nil, message, code) end
  local self = setmetatable({
    handle, message, vm = vm,
    handlers = {},     -- by exit kind
    stopping = false,  -- { value } once cpu:stop was called
    runner = runner.new(),
    limit = { 0, 0 },  -- of cpu:run: when to come out, for a timer too; its deadline
    parked = false,    -- by the "park" of a handler under vm:run
    temporary = false, -- the breakpoint of a run to an address
    id = 0,
  }, VCPU)
  self.id = raw.vcpu_id(self)
  join(vm.vcpus, self)
  if answers ~= nil or more ~= nil then
    local ok, result, refusal, kind = pcall(begin, self, options)
    if not (ok and result) then
      self:close()
      if not ok then error(result, 0) end
      return check.result(nil, refusal, kind)
    end
  end
  return self
end

--- Closes the vCPU; a run in whose handler that is done ends with exit.kind "stopped". Doing it
--- twice is fine.
function methods.close(self)
  mine(self)
  if runner.busy(self.runner) or self.vm.alone == self then self.stopping = self.stopping or {} end
  leave(self.vm.vcpus, self)
  if self.vm.started[self.id] == self then self.vm.started[self.id] = nil end
  raw.close(self)
end

--- cpu:on(kind, fn) calls fn(cpu, exit) for exits of the kind that no device takes. It returns
---   nil or "stop"  cpu:run returns with the exit       "continue"  go on
---   a number       the value of a read                 "skip"      drop a write, read all ones
---   "retry"        the access again, now that memory is mapped there; instruction, exception: the
---                  instruction again
---   "skip"         instruction, exception: goes on behind the instruction
---   "refuse"       msr: the guest gets a #GP
---   "park"         under vm:run, the others go on without this vCPU, until cpu:unpark; under
---                  cpu:run the same as "stop"
---   { inject = "#GP", error_code = n, address = u64 }   the guest takes an exception: cpu:inject
--- An "instruction" exit, and an exception that an instruction failed with, are answered with
--- "skip" to go on behind the instruction, whose work the handler has done (the disassembler says
--- how long it is; a rip that the handler set stays), with "continue" where rip was set, or with
--- "retry".
--- cpu:on(kind, nil) takes the handler away.
function methods.on(self, kind, handler)
  mine(self)
  local number = exits.numbers[kind]
  if not number then
    local names = {}
    for _, name in pairs(exits.names) do names[#names + 1] = name end
    table.sort(names)
    error(("cpu:on: no exit kind %s; the kinds are %s")
      :format(type(kind) == "string" and ("%q"):format(kind) or type(kind),
        table.concat(names, ", ")), 2)
  end
  if type(handler) == "string" then
    error(('cpu:on: handler: a function expected, got %q; write function() return %q end for this '
      .. "answer"):format(handler, handler), 2)
  end
  if handler ~= nil then check.callable("cpu:on: handler", handler) end
  self.handlers[number] = handler
end

--- Answers the pio, mmio, msr, fault or hypercall exit that run returned: `value` for a read (of a
--- hypercall, RAX), nothing for a write.
function methods.answer(self, value)
  open(self)
  local exit = raw.exit(self)
  if value ~= nil then
    value = dispatch.check_value(value, 0, exit.size > 0 and exit.size or 8,
      "cpu:answer: the script", 4)
  elseif exit.access == 1 then
    error("cpu:answer: the guest reads: a value expected", 2)
  end
  local _, message = raw_answer(self, value)
  if message then error(message, 2) end
end

--- Refuses the msr exit that run returned: the guest gets a #GP.
function methods.refuse(self)
  open(self)
  return check.result(raw.refuse(self))
end

--- Does the access of the fault or mmio exit that run returned again, after memory was mapped there
--- or the vCPU was moved.
function methods.retry(self)
  open(self)
  return check.result(raw.retry(self))
end

--- Drops the pio, mmio, msr, fault or hypercall exit that run returned: its access is not made.
--- After a read, the vCPU is at the instruction, with its general and system registers as before
--- it; after a write, which KVM has finished, behind it. Setting cpu.rip does the same first.
function methods.drop(self)
  open(self)
  return check.result(raw.drop(self))
end

--- Lets KVM finish the instruction whose exit cpu:answer or cpu:retry has closed, without running
--- the guest further: then registers and memory are as behind it, and true is returned. Or the exit
--- that the instruction makes further (the next element of string I/O, the other part of an
--- access), open as from cpu:run.
function methods.finish(self)
  open(self)
  local kind, message, code = raw.finish(self)
  if kind and kind > 0 then return exits.new(self) end
  return check.result(kind and true, message, code)
end

local move_options = { fpu = true, msrs = true }

--- Moves the vCPU to another space of its VM (an object or a number): the same processor, another
--- memory map. Its whole state goes with it. options.fpu = false leaves x87, SSE and AVX state
--- behind, options.msrs = false the MSRs and debug registers. From a handler, the instruction that
--- exited finishes in the old space first. nil, message, code where KVM has no room for a further
--- vCPU.
function methods.set_space(self, space, options)
  open(self)
  options = check.options("cpu:set_space", options, move_options)
  local id = space
  if getmetatable(space) == spaces.class then
    if space.closed then error("attempt to use a closed space", 2) end
    if space.vm ~= self.vm then error("cpu:set_space: the space belongs to another VM", 2) end
    id = space.id
  end
  id = check.whole("cpu:set_space: space", id, 0, 2 ^ 32 - 1)
  local flags = (options.fpu == false and NO_FPU or 0) + (options.msrs == false and NO_MSRS or 0)
  return check.result(raw.set_space(self, id, flags))
end

--- Lets the guest take an exception, by name ("#GP") or vector, before its next instruction;
--- error_code for those that have one, address (CR2) for #PF. An open read, fetch, access to an MSR
--- or hypercall is taken back, and the exception is at its instruction; a write was finished by
--- KVM, and the exception is at the instruction behind it.
function methods.inject(self, exception, error_code, address)
  open(self)
  local vector = exits.vectors[exception] or exception
  if type(vector) == "string" then
    error(("cpu:inject: a name such as \"#GP\" or a vector up to 31 expected, got %q")
      :format(vector), 2)
  end
  vector = check.whole("cpu:inject: exception", vector, 0, 31)
  error_code = check.whole("cpu:inject: error code", error_code or 0, 0, 2 ^ 32 - 1)
  address = check_register("cpu:inject: address", address)
  return check.result(raw.inject(self, vector, error_code, address))
end

--- All single registers by name, as u64: general, control and debug ones, XCR0, and the control
--- registers of x87 and SSE; tostring gives a table of text.
function methods.regs(self)
  open(self)
  return registers.all(self)
end

-- ---- Fields ----

local readers = {
  exits = raw.vcpu_exits,
  space = function(self) return self.vm.spaces[raw.vcpu_space(self)] end,
  system = function(self)
    local gpa = raw.vcpu_system(self)
    return gpa ~= 0 and gpa or nil
  end,
}

local writers = {} -- of fields that are no registers

-- The further subjects, one file each: functions that add methods and fields. Most programs have no
-- use for those that come when a name is missing.
run.add(methods, inner)
local further = class.further(function(part)
  require("lunavisor.vcpu." .. part)(methods, readers, writers, inner)
end, { "state", "linear", "exit", "debug", "interrupt", "thread" })
setmetatable(inner, { __index = function(_, name)
  return further() and rawget(inner, name) or nil
end })

class.announce(VCPU, methods, "id vm parked", function()
  further()
  local names = registers.names()
  for name in pairs(readers) do names[name] = true end
  return names
end)

function VCPU.__index(self, key)
  local method = methods[key]
  if method then return method end
  if not self[1] then
    if class.is_probe(key) then return nil end
    if further() then return VCPU.__index(self, key) end -- a tail call: the caller is blamed
    error("attempt to use a closed vcpu", 2)
  end
  local value = registers.get(self, key)
  if value ~= nil then return value end
  local reader = readers[key]
  if reader then return reader(self) end
  if class.is_probe(key) then return nil end
  if further() then return VCPU.__index(self, key) end
  class.missing(VCPU, key, nil, 2)
end

function VCPU.__newindex(self, key, value)
  if not self[1] then error("attempt to use a closed vcpu", 2) end
  local writer = writers[key]
  if writer then return writer(self, value) end
  if not registers.set(self, key, value) then
    if registers.is_group(key) then
      error(("a vcpu has no field '%s' that can be set; write its fields, like %s.base")
        :format(key, key), 2)
    end
    if further() then return VCPU.__newindex(self, key, value) end
    class.missing(VCPU, key, " that can be set", 2)
  end
end

VCPU.__close = methods.close

function VCPU.__tostring(self)
  if not raw.is_open(self) then return "vcpu (closed)" end
  if self.started then return ("vcpu %d (started, %d exits)"):format(self.id, self.exits) end
  return ("vcpu %d (rip %s, %d exits)"):format(self.id, u64.hex(self.rip), self.exits)
end

return { new = new, class = VCPU }
