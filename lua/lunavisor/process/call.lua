-- SPDX-License-Identifier: MIT
-- One system call: from the registers to the function that answers it, and back.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"
local linux = require "lunavisor.process.linux"
local memories = require "lunavisor.process.memory"
local number_of = require "lunavisor.process.number"
local registers = require "lunavisor.vcpu.registers"
local signals = require "lunavisor.process.signal"
local u64 = require "lunavisor.text.u64"

local M = {}

local id, get, set = registers.id, raw.get, raw.set
local EXACT = 2 ^ 53
local RAX, RCX, RDX, RSI, RDI = id "rax", id "rcx", id "rdx", id "rsi", id "rdi"
local R8, R9, R10, R11 = id "r8", id "r9", id "r10", id "r11"
local RIP, RFLAGS = id "rip", id "rflags"
local TWO = u64(2) -- bytes of SYSCALL
local NO_RESUME = u64 "0xfffffffffffeffff" -- RFLAGS without RF
local FAULT, SPENT = memories.FAULT, memories.SPENT

--- By name: functions (process, a, b, c, d, e, f) that give a number, an error's name, or nil where
--- they have set the registers or ended the process.
M.answers = {}
for _, part in ipairs { "memory", "file", "time", "self", "signal" } do
  for name, fn in pairs(require("lunavisor.process.answer." .. part)) do M.answers[name] = fn end
end

-- A register as a number where that is exact, or as the u64 that it is.
local function register(cpu, number)
  local value = get(cpu, number)
  if value >= 0 and value < EXACT then return tonumber(value) end
  return value
end

-- ---- For the script ----

local methods = {}
local Call = class.define(class.class("system call", "call"), methods,
  "name number rip process args", "kept")
local mine = class.checker(Call)

function methods.read(self, address, size)
  mine(self)
  return self.process.memory:read(address, size)
end

function methods.write(self, address, bytes)
  mine(self)
  if type(bytes) ~= "string" then
    error(("call:write: a string expected, got %s"):format(class.describe(bytes)), 2)
  end
  self.process.memory:write(address, bytes)
  return #bytes
end

function methods.text(self, address)
  mine(self)
  return self.process.memory:text(address)
end

local function unanswered(process, call)
  local told = process.told
  if not told[call.number] then
    told[call.number] = true
    process.log(("%s: the system call %s (%d) at rip %s is not answered (ENOSYS); "
      .. "process:on(%q, ...) answers it"):format(process.name, call.name, call.number,
      u64.hex(call.rip), call.name))
  end
  return "ENOSYS"
end

local function by_default(self)
  local answer, args = M.answers[self.name], self.args
  if not answer then return unanswered(self.process, self) end
  local result = answer(self.process, args[1], args[2], args[3], args[4], args[5], args[6])
  self.kept = result == nil
  return result
end

function methods.default(self)
  mine(self)
  local result = by_default(self)
  return result
end

function Call.__tostring(self)
  local parts = {}
  for i = 1, 6 do parts[i] = u64.hex(self.args[i]) end
  return ("%s(%s)"):format(self.name, table.concat(parts, ", "))
end

-- ---- Answering ----

-- What a handler of the script has returned, as RAX.
local function value_of(call, result)
  if type(result) == "string" then
    local number = linux.errors[result]
    if number then return -number end
  elseif u64.exact(result) ~= nil then
    return result
  end
  error(("the handler of the system call %s has returned %s: a number or an error's name such as "
    .. "\"ENOENT\" expected"):format(call.name, type(result) == "string" and ("%q"):format(result)
    or class.describe(result)), 0)
end

local function ask(handler, call)
  local args = call.args
  return handler(call, args[1], args[2], args[3], args[4], args[5], args[6])
end

-- What answers: its result, or why it could not be had.
local function answer(process, call)
  local handler = process.handlers[call.name]
  local ok, result = pcall(handler and ask or by_default, handler or call, call)
  if not ok then
    if result ~= FAULT and result ~= SPENT then error(result, 0) end
    result = result == FAULT and "EFAULT" or "ENOMEM"
  end
  if result == nil and call.kept then return nil end
  return value_of(call, result)
end

local function call_of(process, cpu, rip)
  local number = register(cpu, RAX)
  local name = type(number) == "number" and number_of.names[number]
  return setmetatable({
    name = name or "call " .. u64.hex(number), number = number, rip = rip, process = process,
    kept = false,
    args = { register(cpu, RDI), register(cpu, RSI), register(cpu, RDX), register(cpu, R10),
      register(cpu, R8), register(cpu, R9) },
  }, Call)
end

local function trace(process, call, result)
  local text = "?"
  if type(result) == "number" and result < 0 and linux.error_names[-result] then
    text = linux.error_names[-result]
  elseif result ~= nil then
    text = u64.hex(result)
  end
  process.trace(("%s = %s"):format(tostring(call), text))
end

M.class = Call

--- Answers the system call at which the vCPU stands; whether the process goes on.
function M.serve(process, cpu, rip)
  local call = call_of(process, cpu, rip)
  local result = answer(process, call)
  if process.trace then trace(process, call, result) end
  if process.ending then return false end
  if result ~= nil then
    local behind = rip + TWO
    set(cpu, RAX, u64.exact(result))
    set(cpu, RCX, behind)
    set(cpu, R11, u64.band(get(cpu, RFLAGS), NO_RESUME))
    set(cpu, RIP, behind)
  end
  return #process.signals.pending == 0 or signals.deliver(process)
end

return M
