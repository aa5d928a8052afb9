-- SPDX-License-Identifier: MIT
-- The source lines of an ELF file, for its symbols: what addresses of it are of which line, and
-- back. Nothing is read before somebody asks.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local KEPT, LONGEST = 1024, 256 -- lines, characters of a path

-- ---- A line ----

local Line = class.define(class.class("source line", "line"), {}, "file line column path address")

--- "kernel.c:12"
function Line.__tostring(self)
  return ("%s:%d"):format(self.file, self.line)
end

-- A path as the image has it, for people: without what would not be seen, or do more than that.
local function shown(path)
  path = path:gsub("%c", "?")
  return #path > LONGEST and "..." .. path:sub(-LONGEST) or path
end

-- ---- The lines of a file ----

local methods = {}
local Lines = class.define(class.class "source lines", methods, "shift",
  "path bytes loads kept count handle problem code")

-- The lines for raw calls; nil, message, code where there are none to be had.
local function opened(self)
  if self.handle then return self.handle end
  if self.problem then return nil, self.problem, self.code end
  local handle, pointer, code = raw.lines_copy(self.bytes)
  if handle then
    self.handle = { handle, pointer }
  else
    self.problem, self.code = pointer, code
  end
  self.bytes = false
  return self.handle, self.problem, self.code
end

local function made(self, address, path, directory, line, column)
  if not address then return nil, path, directory end
  return setmetatable({ address = u64(address) + u64(self.shift), path = shown(path),
    file = shown(path:sub(directory + 1):gsub("^%./", "")), line = line,
    column = column > 0 and column or nil }, Line)
end

-- Whether an address of the file is one of those that are loaded.
local function is_loaded(self, address)
  for _, header in ipairs(self.loads) do
    if u64.lt(address - header.vaddr, header.memsz) then return true end
  end
  return false
end

local function look(self, address)
  local own = address - u64(self.shift)
  if not is_loaded(self, own) then return nil, "the address is not in the image", "not_found" end
  local handle, message, code = opened(self)
  if not handle then return nil, message, code end
  return made(self, raw.lines_at(handle, own))
end

--- The line that an address, a u64, belongs to. nil, message, code where that is none ("not_found")
--- or the lines cannot be had.
function methods.at(self, address)
  local key = u64.key(address)
  local kept = self.kept[key]
  if kept then return kept end
  local line, message, code = look(self, address)
  if not line then return nil, message, code end
  if self.count == KEPT then self.kept, self.count = {}, 0 end
  self.kept[key], self.count = line, self.count + 1
  return line
end

--- The line of that number in a file, or the next one of it that has code; the same.
function methods.find(self, file, number)
  if number >= 2 ^ 32 then return nil, "no file has so many lines", "not_found" end
  local handle, message, code = opened(self)
  if not handle then return nil, message, code end
  return made(self, raw.lines_find(handle, file, number))
end

-- Of a file its descriptor is kept, until the first look; of bytes these, until then.
local function new(file)
  local image = file.image
  local self = setmetatable({ shift = file.shift, path = image.path, bytes = false,
    loads = file.loads, kept = {}, count = 0, handle = false, problem = false, code = false },
    Lines)
  if not image.path then
    self.bytes = image.bytes
    return self
  end
  local handle, pointer, code = raw.lines_create(image.path)
  if handle then
    self.handle = { handle, pointer }
  else
    self.problem, self.code = pointer, code
  end
  return self
end

return { new = new }
