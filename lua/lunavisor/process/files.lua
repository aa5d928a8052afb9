-- SPDX-License-Identifier: MIT
-- What a process can open and has open: files that the script gives as strings, those of a
-- directory of the host, to be read only, and the standard streams.

local pack = require "lunavisor.text.pack"

local methods = {}
local Files = { __index = methods }

local MOST = 1024 -- descriptors
local REGULAR, DIRECTORY, CHARACTERS = 0x8000, 0x4000, 0x2000 -- S_IF*
local host_errors = { [2] = "ENOENT", [13] = "EACCES", [20] = "ENOTDIR", [21] = "EISDIR" }

--- options: stdin, stdout, stderr (functions), files (contents by path), root (a directory), cwd.
local function new(options)
  local self = setmetatable({
    given = options.files or {}, root = options.root, directory = "/", list = {},
    numbers = {}, known = 0, -- inodes by path
  }, Files)
  self.list[0] = { kind = "in", read = options.stdin, rest = "", users = 1 }
  self.list[1] = { kind = "out", write = options.stdout, users = 1 }
  self.list[2] = { kind = "out", write = options.stderr, users = 1 }
  return self
end

-- ---- Paths ----

-- An absolute path without "." and "..", which do not lead above "/".
local function normal(path)
  local parts = {}
  for part in path:gmatch "[^/]+" do
    if part == ".." then parts[#parts] = nil elseif part ~= "." then parts[#parts + 1] = part end
  end
  return "/" .. table.concat(parts, "/")
end

--- The path that a call means, from an open directory where it says so; nil and an error's name.
function methods.path(self, text, fd)
  if not text then return nil, "ENAMETOOLONG" end
  if text == "" then return nil, "ENOENT" end
  if text:sub(1, 1) == "/" then return normal(text) end
  if not fd then return normal(self.directory .. "/" .. text) end
  local from = self.list[fd]
  if not from then return nil, "EBADF" end
  if from.kind ~= "directory" then return nil, "ENOTDIR" end
  return normal(from.path .. "/" .. text)
end

-- Whether a path is a directory above files that the script has given.
local function is_above(self, path)
  local prefix = path == "/" and "/" or path .. "/"
  for name in pairs(self.given) do
    if name:sub(1, #prefix) == prefix then return true end
  end
  return path == "/"
end

local function of_text(text)
  local at = 0
  return {
    size = function() return #text end,
    seek = function(_, to) at = to end,
    read = function(_, count) return text:sub(at + 1, at + count) end,
    close = function() end,
  }
end

local function of_host(file)
  return {
    size = function() return file:seek "end" or 0 end,
    seek = function(_, to) file:seek("set", to) end,
    read = function(_, count) return file:read(count) or "" end,
    close = function() file:close() end,
  }
end

local function from_host(self, path)
  if not self.root then return nil, "ENOENT" end
  local file, _, code = io.open(self.root .. path, "rb")
  if not file then return nil, host_errors[code] or "EACCES" end
  local _, problem, why = file:read(1)
  if not problem then return { kind = "file", path = path, source = of_host(file), at = 0 } end
  file:close()
  if host_errors[why] ~= "EISDIR" then return nil, "EIO" end
  return { kind = "directory", path = path }
end

-- What a path names, opened; nil and an error's name.
local function find(self, path)
  local given = self.given[path]
  if type(given) == "function" then given = given(path) end
  if given then return { kind = "file", path = path, source = of_text(given), at = 0 } end
  if is_above(self, path) then return { kind = "directory", path = path } end
  return from_host(self, path)
end

-- ---- Descriptors ----

--- The lowest free number from `least` on; nil and an error's name.
function methods.put(self, one, least)
  local fd = least or 0
  while self.list[fd] do fd = fd + 1 end
  if fd >= MOST then return nil, "EMFILE" end
  self.list[fd] = one
  one.users = (one.users or 0) + 1
  return fd
end

--- Opens a path for reading; nil and an error's name.
function methods.open(self, path, directory)
  local one, why = find(self, path)
  if not one then return nil, why end
  if directory and one.kind ~= "directory" then
    one.source:close()
    return nil, "ENOTDIR"
  end
  return self:put(one)
end

function methods.close(self, fd)
  local one = self.list[fd]
  if not one then return nil, "EBADF" end
  self.list[fd] = nil
  one.users = one.users - 1
  if one.users == 0 and one.source then one.source:close() end
  return 0
end

--- Closes all of them.
function methods.close_all(self)
  for fd in pairs(self.list) do self:close(fd) end
end

--- The same under another number, whatever is there.
function methods.copy(self, fd, to)
  local one = self.list[fd]
  if not one or to < 0 or to >= MOST then return nil, "EBADF" end
  if fd == to then return to end
  if self.list[to] then self:close(to) end
  self.list[to] = one
  one.users = one.users + 1
  return to
end

-- ---- Data ----

-- What the standard input has: a whole line, or what is left of one.
local function read_input(one, count)
  if one.rest == "" then one.rest = one.read and one.read(count) or "" end
  local piece = one.rest:sub(1, count)
  one.rest = one.rest:sub(count + 1)
  return piece
end

--- Up to `count` bytes, from `at` where that is given; nil and an error's name.
function methods.read(self, fd, count, at)
  local one = self.list[fd]
  if not one or one.kind == "out" then return nil, "EBADF" end
  if one.kind == "directory" then return nil, "EISDIR" end
  if one.kind == "in" then
    if at then return nil, "ESPIPE" end
    return read_input(one, count)
  end
  one.source:seek(at or one.at)
  local data = one.source:read(count)
  if not at then one.at = one.at + #data end
  return data
end

--- Where a descriptor can be written to; nil and an error's name.
function methods.output(self, fd)
  local one = self.list[fd]
  if not one or one.kind ~= "out" then return nil, "EBADF" end
  return one.write
end

--- Another place in a file; nil and an error's name.
function methods.seek(self, fd, offset, whence)
  local one = self.list[fd]
  if not one then return nil, "EBADF" end
  if one.kind ~= "file" then return nil, one.kind == "directory" and "EINVAL" or "ESPIPE" end
  local from = whence == 0 and 0 or whence == 1 and one.at or whence == 2 and one.source:size()
  if not from or from + offset < 0 then return nil, "EINVAL" end
  one.at = math.floor(from + offset)
  return one.at
end

-- ---- What is known of it ----

local function inode(self, path)
  if not self.numbers[path] then
    self.known = self.known + 1
    self.numbers[path] = self.known
  end
  return self.numbers[path]
end

-- A struct stat; nothing of the host but the size shows.
local function stat(self, one)
  local size, mode = 0, CHARACTERS + 0x190 -- 0620
  if one.kind == "file" then size, mode = one.source:size(), REGULAR + 0x124 end
  if one.kind == "directory" then mode = DIRECTORY + 0x16d end
  return pack.le64(1) .. pack.le64(inode(self, one.path or one.kind)) .. pack.le64(1)
    .. pack.le32(mode) .. ("\0"):rep(12) .. pack.le64(0) .. pack.le64(size) .. pack.le64(4096)
    .. pack.le64(math.ceil(size / 512)) .. ("\0"):rep(72)
end

--- A struct stat of a descriptor; nil and an error's name.
function methods.stat_open(self, fd)
  local one = self.list[fd]
  if not one then return nil, "EBADF" end
  return stat(self, one)
end

--- A struct stat of a path; nil and an error's name.
function methods.stat(self, path)
  local one, why = find(self, path)
  if not one then return nil, why end
  local bytes = stat(self, one)
  if one.source then one.source:close() end
  return bytes, one.kind
end

return { new = new }
