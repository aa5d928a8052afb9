-- SPDX-License-Identifier: MIT
-- The memory of a process as its processor sees it: four levels of page tables, and the frames that
-- they lead to. Pages are numbers of 4 KiB: a linear address divided by 0x1000.

local buffers = require "lunavisor.memory.buffer"

local floor = math.floor

local PAGE = 0x1000
local TABLES, FRAMES = 0, 2 ^ 32 -- guest-physical addresses: page tables and RAM
local PRESENT, WRITE, USER, USED = 1, 2, 4, 0x60 -- USED: accessed and dirty
local NO_EXECUTE = 0x80000000 -- in the upper half
local EXEC_RIGHT, WRITE_RIGHT = 4, 2 -- PROT_EXEC, PROT_WRITE
local SYSTEM_SIZE = 0x10000

local methods = {}
local Tables = { __index = methods }

--- For a VM that has no memory yet, with `size` bytes for the process. nil, message, code.
local function new(vm, size)
  local entries = floor(size / 2 ^ 20) * 0x4000 + 0x40000 -- four tables a MiB, and 64
  local tables, ram, message, code
  tables, message, code = buffers.new(entries)
  if not tables then return nil, message, code end
  ram, message, code = buffers.new(size)
  if not ram then
    tables:close()
    return nil, message, code
  end
  local self = setmetatable({
    vm = vm, tables = tables, ram = ram, used = PAGE, lower = { {}, {}, {} }, stale = false,
    frames = {},  -- by page: the frame behind it
    fresh = 0,    -- the first frame that nobody had yet
    freed = {},   -- frames that somebody had
    free = floor(size / PAGE),
  }, Tables)
  local ok
  ok, message, code = vm.default:update(function(update)
    update:map(tables, TABLES, { rights = "rwx" })
    update:map(ram, FRAMES, { rights = "rwx" })
  end)
  if ok then return self end
  self:close()
  return nil, message, code
end

function methods.close(self)
  self.tables:close()
  self.ram:close()
end

-- ---- Entries ----

local function write_entry(self, at, gpa, low, high)
  self.tables:u32(at, gpa % 2 ^ 32 + low)
  self.tables:u32(at + 4, floor(gpa / 2 ^ 32) + high)
end

-- The offset of a new table; nil where there is no room.
local function new_table(self)
  local at = self.used
  if at + PAGE > self.tables.size then return nil end
  self.used = at + PAGE
  return at
end

local SPANS = { 2 ^ 27, 2 ^ 18, 2 ^ 9 } -- pages below an entry of the three upper levels

-- The offset of the entry of a page; tables on its way are made. nil where there is no room.
local function entry_of(self, page)
  local key = floor(page / 512)
  local at = self.lower[3][key]
  if not at then
    at = 0
    for level, span in ipairs(SPANS) do
      key = floor(page / span)
      local below = self.lower[level][key]
      if not below then
        below = new_table(self)
        if not below then return nil end
        self.lower[level][key] = below
        write_entry(self, at + key % 512 * 8, TABLES + below, PRESENT + WRITE + USER, 0)
      end
      at = below
    end
  end
  return at + page % 512 * 8
end

local function bit_of(rights, right)
  return rights % (2 * right) >= right
end

-- Writes the entry of a page that has a frame; without rights it is not present.
local function write(self, at, frame, rights)
  if rights == 0 then return write_entry(self, at, 0, 0, 0) end
  write_entry(self, at, FRAMES + frame * PAGE,
    PRESENT + USER + USED + (bit_of(rights, WRITE_RIGHT) and WRITE or 0),
    bit_of(rights, EXEC_RIGHT) and 0 or NO_EXECUTE)
end

-- ---- Frames ----

local function take(self)
  local frame = table.remove(self.freed)
  if frame then
    self.ram:fill(0, frame * PAGE, PAGE)
  else
    frame = self.fresh
    if (frame + 1) * PAGE > self.ram.size then return nil end
    self.fresh = frame + 1
  end
  self.free = self.free - 1
  return frame
end

--- Gives pages without a frame one with zeroes, which the processor sees with these rights; false
--- where there is no memory left.
function methods.add(self, first, last, rights)
  local frames = self.frames
  for page = first, last - 1 do
    if not frames[page] then
      local at = entry_of(self, page)
      local frame = at and take(self)
      if not frame then return false end
      frames[page] = frame
      write(self, at, frame, rights)
    end
  end
  return true
end

-- The pages of a range that have frames: of a large one, by going through all that there are.
local function present(self, first, last)
  local list, frames = {}, self.frames
  if last - first <= self.ram.size / PAGE - self.free then
    for page = first, last - 1 do
      if frames[page] then list[#list + 1] = page end
    end
    return list
  end
  for page in pairs(frames) do
    if page >= first and page < last then list[#list + 1] = page end
  end
  return list
end

--- Writes the bytes of a string at a linear address, all of whose pages have frames.
function methods.write(self, address, data)
  local at = 1
  while at <= #data do
    local from = address + at - 1
    local offset = from % PAGE
    local piece = data:sub(at, at + PAGE - offset - 1)
    self.ram:write(self.frames[floor(from / PAGE)] * PAGE + offset, piece)
    at = at + #piece
  end
  return true
end

--- Other rights for the pages of a range that have frames.
function methods.protect(self, first, last, rights)
  for _, page in ipairs(present(self, first, last)) do
    write(self, entry_of(self, page), self.frames[page], rights)
    self.stale = true
  end
end

--- Takes the frames of a range back.
function methods.drop(self, first, last)
  for _, page in ipairs(present(self, first, last)) do
    write(self, entry_of(self, page), 0, 0)
    self.freed[#self.freed + 1] = self.frames[page]
    self.free = self.free + 1
    self.frames[page] = nil
    self.stale = true
  end
end

--- Puts the frames of `count` pages behind others, which have none; false where a table is missing.
function methods.move(self, from, to, count, rights)
  local list = present(self, from, from + count)
  for _, page in ipairs(list) do
    if not entry_of(self, page - from + to) then return false end
  end
  for _, page in ipairs(list) do
    local frame = self.frames[page]
    write(self, entry_of(self, page), 0, 0)
    write(self, entry_of(self, page - from + to), frame, rights)
    self.frames[page], self.frames[page - from + to] = nil, frame
    self.stale = true
  end
  return true
end

--- Before the process goes on: entries that were taken back may still be known to the processor,
--- or to a kernel that shadows them. Where guest-physical memory changes, both forget all.
function methods.settle(self)
  if not self.stale then return true end
  local space, size = self.vm.default, self.tables.size
  local ok, message, code = space:unmap(TABLES, size)
  if ok then ok, message, code = space:map(self.tables, TABLES, { rights = "rwx" }) end
  self.stale = not ok
  return ok, message, code
end

--- Lets a vCPU of mode "user" see the process: these tables, which also have its system area, for
--- ring 0 alone, so that exceptions remain exits; and no ports.
function methods.attach(self, cpu)
  local system = cpu.system
  for gpa = system, system + SYSTEM_SIZE - PAGE, PAGE do
    write_entry(self, entry_of(self, gpa / PAGE), gpa, PRESENT + WRITE + USED, 0)
  end
  cpu.cr3 = TABLES
  cpu.tr.limit = 0x67
end

return { new = new, PAGE = PAGE }
