-- SPDX-License-Identifier: MIT
-- luna.process: a Linux program in ring 3 of a vCPU, without a kernel: this library answers its
-- system calls, or the script does.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local calls = require "lunavisor.process.call"
local ending = require "lunavisor.process.ending"
local files = require "lunavisor.process.files"
local images = require "lunavisor.process.image"
local memories = require "lunavisor.process.memory"
local numbers = require "lunavisor.process.number"
local option = require "lunavisor.process.option"
local raw = require "lunavisor.binding.backend"
local reader = require "lunavisor.load.reader"
local signals = require "lunavisor.process.signal"
local u64 = require "lunavisor.text.u64"
local vms = require "lunavisor.vm.vm"

local PID = 1000
local SYSCALL, LSTAR = "\15\5", 0xc0000082
local GATE = 0x3000 -- in the vCPU's system area: nothing is there
local SAME_MOST = 16 -- faults at one place that should not be

local methods = {}
local Process = class.define(class.class "process", methods, "vm cpu name symbols ending",
  [[memory files handlers signals told log trace terminal clock epoch slept random pid title
  gate last_fault same]])
local open = class.checker(Process)

-- ---- Exceptions ----

-- A page fault at the same place as the last one, where memory is.
local function is_stuck(self, exit)
  local place = u64.key(exit.rip) .. u64.key(exit.address)
  self.same = place == self.last_fault and self.same + 1 or 0
  self.last_fault = place
  return self.same > SAME_MOST
end

local function page_fault(self, exit)
  local address = u64.lt(exit.address, 2 ^ 53) and u64.tonumber(exit.address) or 2 ^ 53
  local ok, why = self.memory:fault(address, exit.error_code)
  if ok and not is_stuck(self, exit) then return true end
  return signals.fault(self, exit, why or "forbidden")
end

-- What an exception of ring 3 is: a system call, a page that gets memory, or a signal. Whether the
-- process goes on.
local function serve(self, cpu, exit)
  if exit.name == "#PF" then
    if exit.rip == self.gate then return calls.serve(self, cpu, cpu.rcx - u64(2)) end
    return page_fault(self, exit)
  end
  if exit.name == "#UD" and raw.linear_read(cpu, exit.rip, 2) == SYSCALL then
    return calls.serve(self, cpu, exit.rip)
  end
  return signals.fault(self, exit)
end

local function handler_of(self)
  return function(cpu, exit)
    if not serve(self, cpu, exit) then return nil end
    if self.memory.tables.stale then assert(self.memory.tables:settle()) end
    return "continue"
  end
end

-- ---- Making one ----

-- SYSCALL is an #UD while EFER.SCE is clear. A KVM that runs ring 3 on the processor without VMX or
-- SVM cannot clear it there: the call then leads to LSTAR, in ring 3, where the process may not
-- execute.
local function gate_of(cpu)
  local gate = u64(cpu.system + GATE)
  cpu.msr[LSTAR] = gate
  return gate
end

-- What XSAVE knows of up to AVX, and AVX-512's state (bits 5 to 7) where it is shown.
local function components(cpu, features)
  if u64.band(features.ecx, 2 ^ 28) == u64(0) then return 3 end
  local wide = u64.band(cpu.cpuid[7].ebx, 2 ^ 16) ~= u64(0)
    and u64.band(cpu.cpuid[0xd].eax, 0xe7) == u64(0xe7)
  return wide and 0xe7 or 7
end

-- The processor as Linux has it for programs: SSE, and what XSAVE knows of.
local function prepare(cpu)
  local features = cpu.cpuid[1]
  if u64.band(features.ecx, 2 ^ 26) ~= u64(0) then
    cpu.cr4 = u64.bor(cpu.cr4, 2 ^ 18)
    cpu.xcr0 = components(cpu, features)
  end
  cpu.fcw, cpu.mxcsr = 0x37f, 0x1f80
  cpu.rdx = 0 -- nothing for the C library to call at the end
  return features.edx
end

local function begin(self, image, options)
  local cpu = self.cpu
  self.memory:attach(cpu)
  self.gate = gate_of(cpu)
  local features = prepare(cpu)
  local arguments = { image.name }
  for i, text in ipairs(options.args) do arguments[i + 1] = text end
  local rip, rsp, symbols = images.load(self.memory, image, { name = image.name,
    arguments = arguments, environment = options.env, random = self.random(16),
    features = features })
  cpu.rip, cpu.rsp = rip, rsp
  self.symbols, self.vm.symbols = symbols, symbols
  cpu:on("exception", handler_of(self))
end

local function made_of(options)
  local vm, message, code = vms.new { accel = options.accel }
  if not vm then return nil, message, code end
  local memory, cpu
  memory, message, code = memories.new(vm, options.memory)
  if memory then
    cpu, message, code = vm:vcpu { mode = "user", cpuid = options.cpuid }
    if cpu then return vm, memory, cpu end
    memory:close()
  end
  vm:close()
  return nil, message, code
end

local function make(source, options)
  local image = reader.open(source)
  image.kind = "ELF64"
  local vm, memory, cpu = made_of(options)
  if not vm then return nil, memory, cpu end
  local self = setmetatable({
    vm = vm, cpu = cpu, name = image.name, symbols = false, ending = false,
    memory = memory, files = files.new(options), handlers = {}, signals = signals.new(), told = {},
    log = options.log, trace = options.trace, terminal = options.terminal, clock = options.clock,
    epoch = options.epoch, slept = 0, random = options.random, pid = PID,
    gate = 0, title = image.name:match "[^/]*$":sub(1, 15), last_fault = "", same = 0,
  }, Process)
  local ok, problem = pcall(begin, self, image, options)
  if ok then return self end
  self:close()
  error(problem, 0)
end

local function conclude(ok, value, message, code)
  if ok then return value, message, code end
  message, code = reader.refusal(value)
  if not message then error(value, 0) end
  return nil, "luna.process: " .. message, code
end

--- Makes a process of a static Linux program for x86-64: a VM of its own with one vCPU in ring 3,
--- whose system calls are answered here. `image`: the name of a file, or { bytes =, name = }.
--- Options:
---   args       what the program gets behind its name, a list of strings
---   env        its environment, a table by name; empty where nil
---   stdin      a string, or a function(count) that gives bytes and nil at the end; at its end
---              where nil
---   stdout, stderr   functions that get what it writes; those of the script where nil
---   root       a directory of the host, whose files it can open for reading as /...
---   files      further ones: contents, or functions(path) that give them, by path
---   memory     a size, 256M where nil: the most that it can use at once
---   terminal   true: its standard streams are a terminal to it
---   clock      a function that gives seconds, luna.clock where nil
---   seed       of its random bytes, which are the same in each run
---   log        a function that is told of system calls that nobody answers; the standard error
---              where nil
---   trace      a function that gets a line of text for each system call
---   accel, cpuid     as luna.vm and vm:vcpu
--- Returns the process: its vm, cpu, name and symbols, and ending, how it ended. nil, message, code
--- where the host refuses, or the image is none, is damaged or is for something else, as luna.load.
local function new(image, options)
  local source = option.source(image)
  return conclude(pcall(make, source, option.options(options)))
end

-- ---- Methods ----

--- Runs the process until it ends, with the options of cpu:run. Returns how, which is a table:
---   kind      "exited"; "killed" by a signal; "timeout"; "stopped", by cpu:stop or max_exits;
---             "failed": the vCPU cannot go on
---   status    what a shell says of it: of "exited" the process's own, of "killed" 128 and the
---             signal's number, of "timeout" 124, of "failed" 125
---   signal    its name; value: what cpu:stop was called with; exit: where the vCPU stands, with
---             exit:explain() for more, nil of "exited"
--- tostring gives a sentence. One that has ended stays ended. After "timeout" and "stopped" a
--- further run goes on. nil, message, code where cpu:run has that.
function methods.run(self, options)
  open(self)
  if self.ending then return self.ending end
  local exit, message, code = self.cpu:run(options)
  if self.ending then return self.ending end
  if not exit then return check.result(nil, message, code) end
  return ending.stopped(exit)
end

--- Lets fn(call, a, b, c, d, e, f) answer a system call, by its name in Linux. The arguments are
--- numbers, or u64 from 2^53 on. What fn returns is the call's result: a number, or an error's name
--- such as "ENOENT". The call has name, number, process and args, and:
---   call:text(address)          the string there, up to its zero byte
---   call:read(address, size)    bytes there
---   call:write(address, bytes)  writes them
---   call:default()              what this library answers, to be returned, or to be looked at
--- A bad address makes the call fail with EFAULT. process:on(name, nil) takes the function away.
function methods.on(self, name, fn)
  open(self)
  if type(name) ~= "string" or not numbers.numbers[name] then
    error(("process:on: the name of a system call expected, got %s%s")
      :format(type(name) == "string" and ("%q"):format(name) or class.describe(name),
        class.hint(name, numbers.numbers)), 2)
  end
  if fn ~= nil then check.callable("process:on", fn) end
  self.handlers[name] = fn
end

--- What memory it has, a line an area, as /proc/self/maps.
function methods.maps(self)
  open(self)
  return tostring(self.memory)
end

--- Closes the process, its VM and its memory. Doing it twice is fine.
function methods.close(self)
  open(self)
  self.files:close_all()
  self.vm:close()
  self.memory:close()
end

Process.__close = methods.close

function Process.__tostring(self)
  return ("process %s (%s)"):format(self.name, self.ending and tostring(self.ending) or "not ended")
end

return { new = new, class = Process }
