-- SPDX-License-Identifier: MIT
-- System calls about memory.

local linux = require "lunavisor.process.linux"
local memories = require "lunavisor.process.memory"

local int, is_plain = linux.int, linux.is_plain

local M = {}

local SHARED, FIXED, ANONYMOUS, NO_REPLACE = 0x1, 0x10, 0x20, 0x100000 -- MAP_*
local WRITE = 2
local MAY_MOVE, MOVE_FIXED = 1, 2 -- MREMAP_*
local DONT_NEED = 4 -- MADV_*

local function has(flags, bit)
  return flags % (2 * bit) >= bit
end

local function result(value, why)
  return value or why
end

function M.brk(process, address)
  return process.memory:set_brk(address)
end

-- Puts what a file has into memory that is there.
local function fill(process, address, size, fd, offset)
  local data, why = process.files:read(fd, size, offset)
  if not data then return why end
  return process.memory:load(address, data) and address or "ENOMEM"
end

function M.mmap(process, address, size, rights, flags, fd, offset)
  rights, flags, fd = int(rights) % 8, int(flags), int(fd)
  local file = not has(flags, ANONYMOUS)
  if file and process.files:seek(fd, 0, 1) == nil then
    return process.files.list[fd] and "ENODEV" or "EBADF"
  end
  if file and (not is_plain(offset) or offset % memories.PAGE ~= 0) then
    return "EINVAL"
  end
  if file and has(flags, SHARED) and has(rights, WRITE) then return "EACCES" end
  local fixed = has(flags, NO_REPLACE) and "free" or has(flags, FIXED) and "fixed" or nil
  local at, why = process.memory:map(address, size, rights, fixed)
  if not at then return why end
  return file and fill(process, at, size, fd, offset) or at
end

function M.munmap(process, address, size)
  return result(process.memory:unmap(address, size))
end

function M.mprotect(process, address, size, rights)
  return result(process.memory:protect(address, size, int(rights) % 8))
end

function M.mremap(process, address, old_size, new_size, flags)
  flags = int(flags)
  if has(flags, MOVE_FIXED) or flags > 7 then return "EINVAL" end
  return result(process.memory:resize(address, old_size, new_size, has(flags, MAY_MOVE)))
end

function M.madvise(process, address, size, advice)
  if int(advice) ~= DONT_NEED then return 0 end
  return result(process.memory:forget(address, size))
end

return M
