-- SPDX-License-Identifier: MIT
-- System calls about the process itself: its numbers, its limits, its end.

local ending = require "lunavisor.process.ending"
local image = require "lunavisor.process.image"
local linux = require "lunavisor.process.linux"
local memories = require "lunavisor.process.memory"
local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"

local int, is_plain = linux.int, linux.is_plain

local M = {}

local function constant(value)
  return function() return value end
end

-- ---- Numbers ----

for _, name in ipairs { "getpid", "gettid", "getpgrp", "set_tid_address", "getsid", "getpgid" } do
  M[name] = function(process) return process.pid end
end
for _, name in ipairs { "getuid", "geteuid", "getgid", "getegid", "getgroups", "setpgid",
  "set_robust_list", "sched_yield", "sync", "getpriority" } do
  M[name] = constant(0)
end
M.getppid, M.umask = constant(1), constant(18)
M.wait4 = constant "ECHILD"
-- C libraries that ask for it do without.
M.rseq = constant "ENOSYS"

function M.sched_getaffinity(process, _, size, address)
  if not is_plain(size) or size < 8 then return "EINVAL" end
  process.memory:write(address, pack.le64(1))
  return 8
end

local function field(text)
  return text .. ("\0"):rep(65 - #text)
end

function M.uname(process, address)
  process.memory:write(address, field "Linux" .. field "lunavisor" .. field "6.1.0" .. field "#1"
    .. field "x86_64" .. field "(none)")
  return 0
end

function M.sysinfo(process, address)
  local ram, free = process.memory.tables.ram.size, process.memory.tables.free * memories.PAGE
  process.memory:write(address, pack.le64(math.floor(process.clock() + process.slept))
    .. ("\0"):rep(24) .. pack.le64(ram) .. pack.le64(free) .. ("\0"):rep(32) .. pack.le16(1)
    .. ("\0"):rep(6 + 16) .. pack.le32(1) .. ("\0"):rep(4))
  return 0
end

-- ---- Limits ----

local STACK, FILES = 3, 7 -- RLIMIT_*
local RESOURCES = 16
local NONE = ("\255"):rep(8)

local function limits(resource)
  if resource == STACK then return pack.le64(image.STACK):rep(2) end
  if resource == FILES then return pack.le64(1024):rep(2) end
  return NONE:rep(2)
end

function M.prlimit64(process, _, resource, new, old)
  resource = int(resource)
  if resource < 0 or resource >= RESOURCES then return "EINVAL" end
  if new ~= 0 then return "EPERM" end
  if old ~= 0 then process.memory:write(old, limits(resource)) end
  return 0
end

function M.getrlimit(process, resource, old) return M.prlimit64(process, 0, resource, 0, old) end

-- ---- The processor ----

local SET_GS, SET_FS, GET_FS, GET_GS = 0x1001, 0x1002, 0x1003, 0x1004 -- ARCH_*

function M.arch_prctl(process, code, address)
  local cpu = process.cpu
  code = int(code)
  if code == SET_FS or code == SET_GS then
    if not u64.lt(address, memories.END * memories.PAGE) then return "EPERM" end
    local segment = code == SET_FS and cpu.fs or cpu.gs
    segment.base = address
  elseif code == GET_FS or code == GET_GS then
    local base = (code == GET_FS and cpu.fs or cpu.gs).base
    process.memory:write(address, pack.le64(u64.tonumber(base)))
  else
    return "EINVAL"
  end
  return 0
end

local SET_NAME, GET_NAME = 15, 16 -- PR_*

function M.prctl(process, option, address)
  option = int(option)
  if option == SET_NAME then
    process.title = process.memory:text(address):sub(1, 15)
  elseif option == GET_NAME then
    process.memory:write(address, process.title .. ("\0"):rep(16 - #process.title))
  else
    return "EINVAL"
  end
  return 0
end

function M.getrandom(process, address, size)
  if not is_plain(size) then return "EFAULT" end
  size = math.min(size, 2 ^ 16)
  process.memory:write(address, process.random(size))
  return size
end

local WAIT, WAKE = 0, 1 -- FUTEX_*

-- Nobody else is there who could wake it.
function M.futex(process, address, operation, value)
  operation = int(operation) % 128
  if operation == WAKE then return 0 end
  if operation ~= WAIT then return "ENOSYS" end
  local now = u64.tonumber(u64.band(process.memory:word(address - address % 8), 2 ^ 32 - 1))
  if address % 8 >= 4 then
    now = u64.tonumber(u64.rshift(process.memory:word(address - address % 8), 32))
  end
  return int(now) == int(value) and "ETIMEDOUT" or "EAGAIN"
end

-- ---- The end ----

function M.exit_group(process, status)
  process.ending = ending.exited(int(status) % 256)
end

M.exit = M.exit_group

return M
