-- SPDX-License-Identifier: MIT
-- Signals of a process: what an exception becomes, what a signal does, and frames on the stack for
-- handlers of its own, as the ABI of Linux has them.

local ending = require "lunavisor.process.ending"
local linux = require "lunavisor.process.linux"
local memories = require "lunavisor.process.memory"
local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"

local M = {}

local KILL, STOP = linux.signals.SIGKILL, linux.signals.SIGSTOP
local DEFAULT, IGNORE = 0, 1
local ONSTACK, NODEFER, RESETHAND = 0x08000000, 0x40000000, 0x80000000 -- SA_*
local RED_ZONE = 128
local FRAME = 8 + 304 + 128 -- return address, ucontext, siginfo
local CONTEXT, INFO = 8, 312 -- offsets in it

-- Exceptions as signals: number, si_code. SDM Vol. 3, table 6-1.
local of_exception = {
  ["#DE"] = { "SIGFPE", 1 }, ["#DB"] = { "SIGTRAP", 2 }, ["#BP"] = { "SIGTRAP", 0x80 },
  ["#OF"] = { "SIGSEGV", 0x80 }, ["#BR"] = { "SIGSEGV", 0x80 }, ["#UD"] = { "SIGILL", 2 },
  ["#NP"] = { "SIGBUS", 0x80 }, ["#SS"] = { "SIGBUS", 0x80 }, ["#GP"] = { "SIGSEGV", 0x80 },
  ["#MF"] = { "SIGFPE", 7 }, ["#AC"] = { "SIGBUS", 1 }, ["#XM"] = { "SIGFPE", 7 },
}
local MAP_ERROR, ACCESS_ERROR = 1, 2 -- SEGV_MAPERR, SEGV_ACCERR

-- ---- State ----

--- What a process begins with.
function M.new()
  return {
    actions = {},      -- by number: { handler, flags, restorer, mask }, numbers and u64
    blocked = {},      -- a set of numbers
    pending = {},      -- a list of { number =, code =, address =, exit = }
    stack = false,     -- { address =, size = } of sigaltstack
    kept = {},         -- by the address of a frame: vector state
  }
end

--- A set of signals, 8 bytes, as a table of numbers.
function M.set_of(bytes)
  local set = {}
  for i = 1, #bytes do
    local byte = bytes:byte(i)
    for bit = 0, 7 do
      if math.floor(byte / 2 ^ bit) % 2 == 1 then set[(i - 1) * 8 + bit + 1] = true end
    end
  end
  set[KILL], set[STOP] = nil, nil
  return set
end

--- And back.
function M.bytes_of(set)
  local bytes = {}
  for i = 0, 7 do
    local byte = 0
    for bit = 0, 7 do
      if set[i * 8 + bit + 1] then byte = byte + 2 ^ bit end
    end
    bytes[i + 1] = string.char(byte)
  end
  return table.concat(bytes)
end

-- ---- Frames ----

-- Registers of a struct sigcontext, in its order.
local REGISTERS = {
  "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax",
  "rcx", "rsp", "rip", "rflags",
}
local GREGS = 8 + 8 + 24 -- behind uc_flags, uc_link and uc_stack

local function word(value)
  local exact = u64(value)
  return pack.le32(u64.tonumber(u64.band(exact, 0xffffffff)))
    .. pack.le32(u64.tonumber(u64.rshift(exact, 32)))
end

local function stack_words(stack)
  if not stack then return word(0) .. word(2) .. word(0) end -- SS_DISABLE
  return word(stack.address) .. word(0) .. word(stack.size)
end

M.stack_words = stack_words

local function context_of(process, signal)
  local cpu, parts = process.cpu, { word(0), word(0), stack_words(process.signals.stack) }
  for _, name in ipairs(REGISTERS) do parts[#parts + 1] = word(cpu[name]) end
  parts[#parts + 1] = pack.le16(0x33) .. ("\0"):rep(4) .. pack.le16(0x2b)
  local exit = signal.exit
  parts[#parts + 1] = word(exit and exit.error_code or 0) .. word(exit and exit.vector or 0)
  parts[#parts + 1] = word(0) .. word(exit and exit.address or 0) .. ("\0"):rep(72)
  parts[#parts + 1] = M.bytes_of(process.signals.blocked)
  return table.concat(parts)
end

-- Where a frame goes: below the red zone, or on the stack for signals.
local function place_of(process, action)
  local top = process.cpu.rsp - u64(RED_ZONE)
  local stack = process.signals.stack
  if stack and u64.band(action.flags, ONSTACK) ~= u64(0)
    and not u64.lt(process.cpu.rsp - u64(stack.address), stack.size) then
    top = u64(stack.address + stack.size)
  end
  top = u64.band(top - u64(FRAME), u64.bnot(15)) - u64(8)
  return u64.lt(top, memories.END * memories.PAGE) and u64.tonumber(top) or nil
end

-- Lets the process go on in its handler.
local function enter(process, signal, action)
  local cpu, state, at = process.cpu, process.signals, place_of(process, action)
  local info = pack.le32(signal.number) .. pack.le32(0) .. pack.le32(signal.code % 2 ^ 32)
    .. pack.le32(0) .. word(signal.address or 0)
  local frame = word(action.restorer) .. context_of(process, signal) .. info
  local ok = at and pcall(process.memory.write, process.memory, at,
    frame .. ("\0"):rep(FRAME - #frame))
  if not ok then return false end
  state.kept[at] = cpu.xsave
  cpu.rsp, cpu.rip, cpu.rax = at, action.handler, 0
  cpu.rdi, cpu.rsi, cpu.rdx = signal.number, at + INFO, at + CONTEXT
  for number in pairs(M.set_of(word(action.mask))) do state.blocked[number] = true end
  if u64.band(action.flags, NODEFER) == u64(0) then state.blocked[signal.number] = true end
  if u64.band(action.flags, RESETHAND) ~= u64(0) then state.actions[signal.number] = nil end
  return true
end

--- rt_sigreturn: what the frame at the stack pointer has saved. False where there is none.
function M.back(process)
  local cpu, state = process.cpu, process.signals
  local at = u64.tonumber(u64.band(cpu.rsp, 2 ^ 48 - 1)) - 8
  local vector = state.kept[at]
  if not vector then return false end
  local from = at + CONTEXT
  for i, name in ipairs(REGISTERS) do
    local value = process.memory:word(from + GREGS + 8 * (i - 1))
    if name == "rflags" then value = u64.bor(u64.band(value, 0xcd5), 2) end
    cpu[name] = value
  end
  state.blocked = M.set_of(process.memory:read(from + 296, 8))
  state.kept[at] = nil
  cpu.xsave = vector
  return true
end

-- ---- What a signal does ----

local function fate(process, number)
  local action = process.signals.actions[number]
  if not action or action.handler == u64(DEFAULT) then
    return linux.ignored[number] and "ignore" or "kill"
  end
  return action.handler == u64(IGNORE) and "ignore" or "handle", action
end

--- Sends the process a signal: it comes when the call that is under way is done.
function M.send(process, number, code)
  if number == 0 then return end
  table.insert(process.signals.pending, { number = number, code = code })
end

-- Lets a signal come; whether the process goes on.
local function come(process, signal)
  local what, action = fate(process, signal.number)
  if what == "ignore" then return true end
  if what == "handle" and enter(process, signal, action) then return true end
  process.ending = ending.killed(what == "handle" and linux.signals.SIGSEGV or signal.number,
    signal.exit)
  return false
end

--- Lets signals come that were sent and are not blocked; whether the process goes on.
function M.deliver(process)
  local state = process.signals
  local at = 1
  while state.pending[at] do
    local signal = state.pending[at]
    if state.blocked[signal.number] then
      at = at + 1
    else
      table.remove(state.pending, at)
      if not come(process, signal) then return false end
    end
  end
  return true
end

--- Lets an exception come as the signal that it is; a process that ignores or blocks it ends.
--- `why`: of a page fault, "unmapped", "forbidden" or "spent". Whether it goes on.
function M.fault(process, exit, why)
  local name, code = "SIGSEGV", why == "forbidden" and ACCESS_ERROR or MAP_ERROR
  if why == "spent" then name = "SIGKILL" end
  if not why then
    local known = of_exception[exit.name] or { "SIGSEGV", 0x80 }
    name, code = known[1], known[2]
  end
  local number = linux.signals[name]
  local what, action = fate(process, number)
  local signal = { number = number, code = code, exit = exit,
    address = exit.address or exit.name ~= "#GP" and exit.rip or nil }
  if what == "handle" and not process.signals.blocked[number] and number ~= KILL
    and enter(process, signal, action) then
    return true
  end
  process.ending = ending.killed(number, exit)
  return false
end

return M
