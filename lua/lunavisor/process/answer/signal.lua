-- SPDX-License-Identifier: MIT
-- System calls about signals.

local linux = require "lunavisor.process.linux"
local signals = require "lunavisor.process.signal"
local u64 = require "lunavisor.text.u64"

local int = linux.int

local M = {}

local KILL, STOP, LAST = linux.signals.SIGKILL, linux.signals.SIGSTOP, 64
local BLOCK, UNBLOCK, SET = 0, 1, 2 -- SIG_*
local DISABLE, LEAST = 2, 2048 -- SS_DISABLE, MINSIGSTKSZ
local BY_USER, BY_TKILL = 0, -6 -- SI_*

local function action_bytes(action)
  if not action then return ("\0"):rep(32) end
  return action.bytes
end

function M.rt_sigaction(process, number, new, old, size)
  number = int(number)
  if size ~= 8 or number < 1 or number > LAST then return "EINVAL" end
  local memory, actions = process.memory, process.signals.actions
  local bytes = new ~= 0 and memory:read(new, 32)
  if bytes and (number == KILL or number == STOP) then return "EINVAL" end
  if old ~= 0 then memory:write(old, action_bytes(actions[number])) end
  if bytes then
    actions[number] = { bytes = bytes, handler = memory:word(new), flags = memory:word(new + 8),
      restorer = memory:word(new + 16), mask = memory:word(new + 24) }
  end
  return 0
end

function M.rt_sigprocmask(process, how, new, old, size)
  if size ~= 8 then return "EINVAL" end
  local state, memory = process.signals, process.memory
  local before = signals.bytes_of(state.blocked)
  if new ~= 0 then
    local set = signals.set_of(memory:read(new, 8))
    how = int(how)
    if how < BLOCK or how > SET then return "EINVAL" end
    if how == SET then state.blocked = {} end
    for number in pairs(set) do state.blocked[number] = how ~= UNBLOCK or nil end
  end
  if old ~= 0 then memory:write(old, before) end
  return 0
end

function M.rt_sigpending(process, address)
  local set = {}
  for _, signal in ipairs(process.signals.pending) do set[signal.number] = true end
  process.memory:write(address, signals.bytes_of(set))
  return 0
end

function M.rt_sigreturn(process)
  if not signals.back(process) then signals.send(process, linux.signals.SIGSEGV, BY_USER) end
end

function M.sigaltstack(process, new, old)
  local state, memory = process.signals, process.memory
  if old ~= 0 then memory:write(old, signals.stack_words(state.stack)) end
  if new == 0 then return 0 end
  if u64.band(memory:word(new + 8), DISABLE) ~= u64(0) then
    state.stack = false
    return 0
  end
  local address, size = memory:word(new), memory:word(new + 16)
  if not u64.lt(address, 2 ^ 47) or not u64.lt(size, 2 ^ 47) then return "EINVAL" end
  if u64.lt(size, LEAST) then return "ENOMEM" end
  state.stack = { address = u64.tonumber(address), size = u64.tonumber(size) }
  return 0
end

-- Sends a signal to the process itself, the only one that is there.
local function send(process, target, number, code)
  number = int(number)
  if number < 0 or number > LAST then return "EINVAL" end
  if target ~= process.pid then return "ESRCH" end
  signals.send(process, number, code)
  return 0
end

function M.kill(process, target, number)
  target = int(target)
  return send(process, (target == 0 or target == -1) and process.pid or math.abs(target), number,
    BY_USER)
end

function M.tkill(process, target, number) return send(process, int(target), number, BY_TKILL) end

function M.tgkill(process, group, target, number)
  if int(group) ~= process.pid then return "ESRCH" end
  return send(process, int(target), number, BY_TKILL)
end

return M
