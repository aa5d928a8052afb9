-- SPDX-License-Identifier: MIT
-- The memory of a process: areas whose pages get memory when they are first used, the heap of brk,
-- and the way to what a system call points to.

local raw = require "lunavisor.binding.backend"
local areas = require "lunavisor.process.areas"
local linux = require "lunavisor.process.linux"
local tables = require "lunavisor.process.tables"
local u64 = require "lunavisor.text.u64"

local floor, min, max = math.floor, math.min, math.max
local is_plain = linux.is_plain

local PAGE = tables.PAGE
local LEAST = 0x10      -- the first page that mmap gives: 64 KiB, as vm.mmap_min_addr
local TOP = 0x7ffff7fff -- the page behind the last that it gives by itself
local END = 0x7ffffffff -- and of all
local AROUND = 32       -- pages that get memory together
local READ, WRITE, EXECUTE = 1, 2, 4 -- PROT_*
local SYSTEM = 16       -- pages of a vCPU's system area, which are not the process's to change

local methods = {}
local Memory = { __index = methods }

--- What a bad address of a system call raises: the call fails with EFAULT.
local FAULT = setmetatable({}, { __tostring = function() return "EFAULT" end })
local SPENT = setmetatable({}, { __tostring = function() return "no memory left" end })

--- The memory of a VM that has none yet; nil, message, code.
local function new(vm, size)
  local made, message, code = tables.new(vm, size)
  if not made then return nil, message, code end
  return setmetatable({
    tables = made, areas = areas.new(), cpu = false,
    heap = 0, brk = 0, -- addresses: where the heap begins and ends
    system = 0,        -- the first page of the vCPU's system area
  }, Memory)
end

--- Gives it the vCPU that sees it.
function methods.attach(self, cpu)
  self.cpu = cpu
  self.tables:attach(cpu)
  self.system = floor(cpu.system / PAGE)
  self.areas:put(self.system, self.system + SYSTEM, 0, "[lunavisor]")
end

function methods.close(self)
  self.tables:close()
end

-- ---- Use ----

-- What an access needs; every page that has any right can be read.
local function allowed(rights, want)
  if want == READ then return rights > 0 end
  return rights % (2 * want) >= want
end

-- Gives the pages around one memory, as far as its area goes.
local function fill(self, area, page)
  local first = max(area.first, page - page % AROUND)
  local last = min(area.last, page - page % AROUND + AROUND)
  if self.tables:add(page, page + 1, area.rights) then
    return self.tables:add(first, last, area.rights) or true
  end
  return false
end

--- Sees to it that a page can be used: true, or nil and "unmapped", "forbidden" or "spent" (no
--- memory is left).
function methods.use(self, page, want)
  local area = self.areas:find(page)
  if not area then return nil, "unmapped" end
  if not allowed(area.rights, want) then return nil, "forbidden" end
  if self.tables.frames[page] or fill(self, area, page) then return true end
  return nil, "spent"
end

-- A page fault's error code (SDM Vol. 3, figure 5-12).
local function wanted(code)
  if code % 32 >= 16 then return EXECUTE end
  return code % 4 >= 2 and WRITE or READ
end

--- Answers a page fault of the process: true where it may try again; nil and why not, as use.
function methods.fault(self, address, code)
  if address >= END * PAGE then return nil, "unmapped" end
  return self:use(floor(address / PAGE), wanted(code))
end

-- ---- What a system call points to ----

-- Sees to it that a range can be accessed.
local function reach(self, address, size, want)
  if not is_plain(address) or not is_plain(size) or address + size > END * PAGE then
    error(FAULT, 0)
  end
  for page = floor(address / PAGE), floor((address + size - 1) / PAGE) do
    local ok, why = self:use(page, want)
    if not ok then error(why == "spent" and SPENT or FAULT, 0) end
  end
end

--- `size` bytes at an address.
function methods.read(self, address, size)
  if size == 0 then return "" end
  reach(self, address, size, READ)
  return raw.linear_read(self.cpu, u64.exact(address), size)
end

--- Writes the bytes of a string at an address.
function methods.write(self, address, data)
  if #data == 0 then return end
  reach(self, address, #data, WRITE)
  raw.linear_write(self.cpu, u64.exact(address), data)
end

--- The text at an address up to its zero byte, which has to come within 4096 bytes.
function methods.text(self, address)
  local parts, size = {}, 0
  while size < 4096 do
    if not is_plain(address) then error(FAULT, 0) end
    local piece = self:read(address, min(64, PAGE - address % PAGE))
    local zero = piece:find("\0", 1, true)
    parts[#parts + 1] = zero and piece:sub(1, zero - 1) or piece
    if zero then return table.concat(parts) end
    address, size = address + #piece, size + #piece
  end
  return nil
end

--- The 8-byte number at an address.
function methods.word(self, address)
  reach(self, address, 8, READ)
  return raw.linear_get(self.cpu, u64.exact(address), 8)
end

--- Writes data however the pages are protected, in areas that are there: for the loader. false
--- where no memory is left.
function methods.load(self, address, data)
  local page, last = floor(address / PAGE), floor((address + #data - 1) / PAGE) + 1
  while page < last do
    local area = self.areas:find(page)
    local behind = min(area.last, last)
    if not self.tables:add(page, behind, area.rights) then return false end
    page = behind
  end
  return #data == 0 or self.tables:write(address, data)
end

-- ---- Changes ----

local function pages(size)
  return floor((size + PAGE - 1) / PAGE)
end

--- Whether a range of pages is the process's own, and not the vCPU's system area.
function methods.is_own(self, first, last)
  return last <= self.system or first >= self.system + SYSTEM
end

-- Whether so many pages more can have memory at once.
local function has_room(self, count)
  return count <= self.tables.free
end

--- Puts an area with zeroes in place of what is there.
function methods.put(self, first, last, rights, name)
  self.tables:drop(first, last)
  self.areas:put(first, last, rights, name)
end

--- An area of `size` bytes for mmap: at an address with `fixed` ("fixed", or "free": only where
--- nothing is), or near it. Its address; nil and an error's name.
function methods.map(self, address, size, rights, fixed)
  if not is_plain(size) or size > END * PAGE then return nil, "ENOMEM" end
  if size == 0 or fixed and (not is_plain(address) or address % PAGE ~= 0) then
    return nil, "EINVAL"
  end
  if not is_plain(address) then address = 0 end
  local count = pages(size)
  local first = floor(address / PAGE)
  local is_free = first >= LEAST and first + count <= END
    and self.areas:gap(count, first, first + count) ~= nil
  if fixed and (first < LEAST or first + count > END or not self:is_own(first, first + count)) then
    return nil, "ENOMEM"
  end
  if fixed == "free" and not is_free then return nil, "EEXIST" end
  if not fixed and not is_free then first = self.areas:gap(count, LEAST, TOP) end
  if not first or rights > 0 and not has_room(self, count) then return nil, "ENOMEM" end
  self:put(first, first + count, rights, "")
  return first * PAGE
end

-- The pages of a range that a call names: aligned, not beyond the end and its own; nil.
local function range(self, address, size)
  if not is_plain(address) or not is_plain(size) or address % PAGE ~= 0 then return nil end
  local first = floor(address / PAGE)
  local last = first + pages(size)
  if last > END or not self:is_own(first, last) then return nil end
  return first, last
end

--- Gives a range up; nil and an error's name.
function methods.unmap(self, address, size)
  local first, last = range(self, address, size)
  if not first or first == last then return nil, "EINVAL" end
  self.tables:drop(first, last)
  self.areas:remove(first, last)
  return 0
end

--- Other rights for a range; nil and an error's name.
function methods.protect(self, address, size, rights)
  local first, last = range(self, address, size)
  if not first then return nil, "EINVAL" end
  if first == last then return 0 end
  if not self.areas:covers(first, last) then return nil, "ENOMEM" end
  self.areas:protect(first, last, rights)
  self.tables:protect(first, last, rights)
  return 0
end

--- Forgets what a range holds: it is zeroes when it is used again. nil and an error's name.
function methods.forget(self, address, size)
  local first, last = range(self, address, size)
  if not first then return nil, "EINVAL" end
  if not self.areas:covers(first, last) then return nil, "ENOMEM" end
  self.tables:drop(first, last)
  return 0
end

-- Lets an area go on behind its end, where that is free.
local function grow(self, area, old_last, new_last)
  if area.last ~= old_last or new_last > END
    or not self.areas:gap(new_last - old_last, old_last, new_last) then return false end
  self.areas:put(old_last, new_last, area.rights, area.name)
  return true
end

--- Another size for an area, elsewhere with `may_move` where it cannot grow in its place. Its
--- address; nil and an error's name.
function methods.resize(self, address, old_size, new_size, may_move)
  local first, last = range(self, address, old_size)
  local count = is_plain(new_size) and pages(new_size) or 0
  if not first or count == 0 then return nil, "EINVAL" end
  local area = self.areas:find(first)
  if first == last or not area or area.last < last then return nil, "EFAULT" end
  if first + count <= last then
    if first + count < last then
      self:unmap((first + count) * PAGE, (last - first - count) * PAGE)
    end
    return address
  end
  if not has_room(self, count - (last - first)) then return nil, "ENOMEM" end
  if grow(self, area, last, first + count) then return address end
  local to = may_move and self.areas:gap(count, LEAST, TOP)
  if not to or not self.tables:move(first, to, last - first, area.rights) then
    return nil, "ENOMEM"
  end
  self.areas:put(to, to + count, area.rights, area.name)
  self.areas:remove(first, last)
  return to * PAGE
end

--- Says where the heap begins.
function methods.begin_heap(self, address)
  self.heap, self.brk = address, address
end

--- Lets the heap end at an address, where that can be; where it ends now.
function methods.set_brk(self, address)
  if not is_plain(address) or address < self.heap then return self.brk end
  local from, to = pages(self.brk), pages(address)
  if to > from then
    if to > END or not has_room(self, to - from) or not self.areas:gap(to - from, from, to) then
      return self.brk
    end
    self.areas:put(from, to, READ + WRITE, "[heap]")
  elseif to < from then
    self.tables:drop(to, from)
    self.areas:remove(to, from)
  end
  self.brk = address
  return address
end

-- ---- Text ----

--- A line an area, as in /proc/self/maps.
function Memory.__tostring(self)
  local lines = {}
  for i, area in ipairs(self.areas.list) do
    lines[i] = (("%012x-%012x %s%s%s %s"):format(area.first * PAGE, area.last * PAGE,
      allowed(area.rights, READ) and "r" or "-", allowed(area.rights, WRITE) and "w" or "-",
      allowed(area.rights, EXECUTE) and "x" or "-", area.name):gsub(" $", ""))
  end
  return table.concat(lines, "\n")
end

return { new = new, FAULT = FAULT, SPENT = SPENT, PAGE = PAGE, END = END }
