-- SPDX-License-Identifier: MIT
-- System calls about files: those that are open, and those that can be opened for reading.

local linux = require "lunavisor.process.linux"
local memories = require "lunavisor.process.memory"
local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"

local int, long, is_plain = linux.int, linux.long, linux.is_plain

local M = {}

local PIECE = 2 ^ 20 -- bytes that one call reads at most, and that are written at a time
local HERE = -100    -- AT_FDCWD
local ACCESS, CREATE, TRUNCATE, DIRECTORY = 3, 0x40, 0x200, 0x10000 -- O_*
local EMPTY_PATH = 0x1000 -- AT_EMPTY_PATH
local WRITE_OK = 2

local function has(flags, bit)
  return flags % (2 * bit) >= bit
end

local function result(value, why)
  return value or why
end

-- The path that a call means.
local function path_of(process, fd, address)
  fd = int(fd)
  return process.files:path(process.memory:text(address), fd ~= HERE and fd or nil)
end

-- ---- Reading and writing ----

local function read(process, fd, address, size, at)
  if not is_plain(size) then size = PIECE end
  local data, why = process.files:read(int(fd), math.min(size, PIECE), at)
  if not data then return why end
  process.memory:write(address, data)
  return #data
end

local function write(process, fd, address, size)
  local sink, why = process.files:output(int(fd))
  if not sink then return why end
  if not is_plain(size) or size >= 2 ^ 31 then return "EFAULT" end
  for from = 0, size - 1, PIECE do
    sink(process.memory:read(address + from, math.min(PIECE, size - from)))
  end
  return size
end

-- Does it for each part of a list of { address, length }, until one is cut short.
local function of_parts(process, fd, list, count, each)
  count = int(count)
  if count < 0 or count > 1024 then return "EINVAL" end
  local done = 0
  for i = 0, count - 1 do
    local address, size = process.memory:word(list + 16 * i), process.memory:word(list + 16 * i + 8)
    if not (u64.lt(address, 2 ^ 53) and u64.lt(size, 2 ^ 31)) then return "EINVAL" end
    size = u64.tonumber(size)
    local ok, part = true, 0
    if size > 0 then ok, part = pcall(each, process, fd, u64.tonumber(address), size) end
    if not ok and (done == 0 or part ~= memories.FAULT) then error(part, 0) end
    if not ok or type(part) == "string" then return done > 0 and done or part end
    done = done + part
    if part < size then break end
  end
  return done
end

M.write = write

function M.read(process, fd, address, size) return read(process, fd, address, size) end

function M.pread64(process, fd, address, size, at)
  if not is_plain(at) then return "EINVAL" end
  return read(process, fd, address, size, at)
end

function M.readv(process, fd, list, count) return of_parts(process, fd, list, count, read) end

function M.writev(process, fd, list, count) return of_parts(process, fd, list, count, write) end

function M.sendfile(process, to, from, offset, size)
  local sink, why = process.files:output(int(to))
  if not sink then return why end
  local at = offset ~= 0 and process.memory:word(offset) or nil
  if at and not u64.lt(at, 2 ^ 53) then return "EINVAL" end
  at = at and u64.tonumber(at)
  local data
  data, why = process.files:read(int(from), is_plain(size) and math.min(size, PIECE)
    or PIECE, at)
  if not data then return why end
  sink(data)
  if at then process.memory:write(offset, pack.le64(at + #data)) end
  return #data
end

function M.lseek(process, fd, offset, whence)
  return result(process.files:seek(int(fd), long(offset), int(whence)))
end

-- ---- Opening ----

function M.openat(process, fd, path, flags)
  local name, why = path_of(process, fd, path)
  if not name then return why end
  flags = int(flags)
  if flags % (ACCESS + 1) ~= 0 or has(flags, CREATE) or has(flags, TRUNCATE) then
    return "EROFS"
  end
  return result(process.files:open(name, has(flags, DIRECTORY)))
end

function M.open(process, path, flags) return M.openat(process, HERE, path, flags) end

function M.close(process, fd) return result(process.files:close(int(fd))) end

function M.dup(process, fd)
  local one = process.files.list[int(fd)]
  if not one then return "EBADF" end
  return result(process.files:put(one))
end

function M.dup2(process, fd, to) return result(process.files:copy(int(fd), int(to))) end

function M.dup3(process, fd, to)
  if int(fd) == int(to) then return "EINVAL" end
  return M.dup2(process, fd, to)
end

local DUPLICATE, GET_FLAGS, DUPLICATE_CLOEXEC = 0, 3, 1030 -- F_*

function M.fcntl(process, fd, command, value)
  local one = process.files.list[int(fd)]
  if not one then return "EBADF" end
  command = int(command)
  if command == DUPLICATE or command == DUPLICATE_CLOEXEC then
    return result(process.files:put(one, int(value)))
  end
  if command == GET_FLAGS then return one.kind == "out" and 1 or 0 end
  return command >= 1 and command <= 4 and 0 or "EINVAL"
end

-- Everything can be read and written at once, or waits when it is.
function M.poll(process, list, count)
  count = int(count)
  if count < 0 or count > 1024 then return "EINVAL" end
  if not is_plain(list) then return "EFAULT" end
  local ready = 0
  for at = list, list + 8 * (count - 1), 8 do
    local fd, events = u64.tonumber(u64.band(process.memory:word(at), 0xffffffff)), 0
    local asked = process.memory:read(at + 4, 2):byte(1)
    if fd < 2 ^ 31 and not process.files.list[fd] then
      events = 0x20 -- POLLNVAL
    elseif fd < 2 ^ 31 then
      events = (asked % 2) + (has(asked, 4) and 4 or 0)
    end
    process.memory:write(at + 6, pack.le16(events))
    if events > 0 then ready = ready + 1 end
  end
  return ready
end

-- ---- What is known of a file ----

local function put_stat(process, address, bytes, why)
  if not bytes then return why end
  process.memory:write(address, bytes)
  return 0
end

function M.fstat(process, fd, address)
  return put_stat(process, address, process.files:stat_open(int(fd)))
end

function M.newfstatat(process, fd, path, address, flags)
  if has(int(flags), EMPTY_PATH) and process.memory:text(path) == "" and int(fd) ~= HERE then
    return M.fstat(process, fd, address)
  end
  local name, why = path_of(process, fd, path)
  if not name then return why end
  return put_stat(process, address, process.files:stat(name))
end

function M.stat(process, path, address) return M.newfstatat(process, HERE, path, address, 0) end

M.lstat = M.stat

-- C libraries that ask for it are content with newfstatat.
function M.statx() return "ENOSYS" end

function M.faccessat(process, fd, path, mode)
  local name, why = path_of(process, fd, path)
  if not name then return why end
  local bytes
  bytes, why = process.files:stat(name)
  if not bytes then return why end
  return has(int(mode), WRITE_OK) and "EROFS" or 0
end

M.faccessat2 = M.faccessat

function M.access(process, path, mode) return M.faccessat(process, HERE, path, mode) end

local function put_text(process, address, size, text)
  if not is_plain(size) then return "EINVAL" end
  text = text:sub(1, size)
  process.memory:write(address, text)
  return #text
end

function M.readlinkat(process, fd, path, address, size)
  local name, why = path_of(process, fd, path)
  if not name then return why end
  if name == "/proc/self/exe" then return put_text(process, address, size, process.name) end
  local bytes
  bytes, why = process.files:stat(name)
  return bytes and "EINVAL" or why
end

function M.readlink(process, path, address, size)
  return M.readlinkat(process, HERE, path, address, size)
end

function M.getcwd(process, address, size)
  local text = process.files.directory .. "\0"
  if is_plain(size) and size < #text then return "ERANGE" end
  return put_text(process, address, #text, text)
end

function M.chdir(process, path)
  local name, why = path_of(process, HERE, path)
  if not name then return why end
  local bytes, kind = process.files:stat(name)
  if not bytes then return kind end
  if kind ~= "directory" then return "ENOTDIR" end
  process.files.directory = name
  return 0
end

-- ---- Terminals ----

local TCGETS, TCSETS, TCSETSF, TIOCGPGRP, TIOCSPGRP, TIOCGWINSZ = 0x5401, 0x5402, 0x5404, 0x540f,
  0x5410, 0x5413
-- A struct termios as a terminal begins: lines, echo, signals.
local TERMIOS = pack.le32(0x500) .. pack.le32(0x5) .. pack.le32(0xbf) .. pack.le32(0x8a3b) .. "\0"
  .. "\3\28\127\21\4\0\1\0\17\19\26\0\18\15\23\22" .. ("\0"):rep(3)

function M.ioctl(process, fd, request, address)
  local one = process.files.list[int(fd)]
  if not one then return "EBADF" end
  if not process.terminal or one.source or one.kind == "directory" then return "ENOTTY" end
  request = int(request)
  if request >= TCSETS and request <= TCSETSF or request == TIOCSPGRP then return 0 end
  local answers = { [TCGETS] = TERMIOS, [TIOCGPGRP] = pack.le32(process.pid),
    [TIOCGWINSZ] = pack.le16(24) .. pack.le16(80) .. pack.le32(0) }
  if not answers[request] then return "ENOTTY" end
  process.memory:write(address, answers[request])
  return 0
end

return M
