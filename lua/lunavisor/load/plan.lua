-- SPDX-License-Identifier: MIT
-- What a load is going to write where: every piece is checked against the memory that is mapped and
-- against the other pieces, and nothing is written until all of them are known.

local buffers = require "lunavisor.memory.buffer"
local class = require "lunavisor.class"
local reader = require "lunavisor.load.reader"

local floor = math.floor

local methods = {}
local Plan = class.define(class.class("load plan", "plan"), methods,
  "name space regions systems pieces roms taken")

local SYSTEM_SIZE = 0x10000 -- of a vCPU's system area
local VIDEO, BIOS_END = 0xa0000, 0x100000 -- what is no RAM to an operating system
local CHUNK = 2 ^ 20

-- The system areas of the VM's vCPUs: their tables are not to be written over.
local function systems_of(vm)
  local list = {}
  for _, cpu in ipairs(vm.vcpus) do
    local system = cpu.system
    if system then list[#list + 1] = { gpa = system, size = SYSTEM_SIZE, cpu = cpu.id } end
  end
  return list
end

--- A plan for a space; `name`: the image's, for messages.
local function new(space, name)
  return setmetatable({
    name = name, space = space, regions = space:regions(), systems = systems_of(space.vm),
    pieces = {},
    roms = {}, taken = {},
  }, Plan)
end

local function refuse(self, code, form, ...)
  reader.refuse(code, "%s: " .. form, self.name, ...)
end

local function overlaps(one, gpa, size)
  return gpa < one.gpa + one.size and one.gpa < gpa + size
end

-- The first address of [gpa, gpa + size) that is not mapped, or nil.
local function unmapped(self, gpa, size)
  local last = gpa + size
  for _, region in ipairs(self.regions) do
    if region.gpa > gpa then break end
    if region.gpa + region.size > gpa then gpa = region.gpa + region.size end
    if gpa >= last then return nil end
  end
  return gpa < last and gpa or nil
end

local function check_free(self, gpa, size, name)
  for _, piece in ipairs(self.taken) do
    if overlaps(piece, gpa, size) then
      refuse(self, "format", "%s, 0x%x to 0x%x, lies over %s, 0x%x to 0x%x: pieces apart "
        .. "expected", name, gpa, gpa + size, piece.name, piece.gpa, piece.gpa + piece.size)
    end
  end
  for _, system in ipairs(self.systems) do
    if overlaps(system, gpa, size) then
      refuse(self, "busy", "%s, 0x%x to 0x%x, lies over the system area of vCPU %d, 0x%x to "
        .. "0x%x; put that elsewhere", name, gpa, gpa + size, system.cpu, system.gpa,
        system.gpa + system.size)
    end
  end
end

--- Takes [gpa, gpa + size), which must be mapped and free, without writing it; `rights` of a
--- segment, for who asks what was loaded.
function methods.take(self, gpa, size, name, rights)
  local hole = unmapped(self, gpa, size)
  if hole then
    refuse(self, "not_found", "%s, 0x%x to 0x%x, needs memory, and nothing is mapped at 0x%x: map "
      .. "a buffer there, or more memory", name, gpa, gpa + size, hole)
  end
  check_free(self, gpa, size, name)
  self.taken[#self.taken + 1] = { gpa = floor(gpa), size = floor(size), name = name,
    rights = rights or "rw-" }
end

--- Puts `data` at gpa, with zeroes behind it up to `size` (its length where nil).
function methods.put(self, gpa, data, name, size, rights)
  size = size or #data
  if size == 0 then return gpa end
  self:take(gpa, size, name, rights)
  self.pieces[#self.pieces + 1] = { gpa = floor(gpa), data = data, size = floor(size) }
  return floor(gpa)
end

--- The first address behind all that is planned below 4 GiB.
function methods.behind(self)
  local last = 0
  for _, piece in ipairs(self.taken) do
    if piece.gpa < 2 ^ 32 then last = math.max(last, piece.gpa + piece.size) end
  end
  return last
end

--- Maps a buffer with `data` at each of the addresses when the plan is carried out; where there is
--- memory, it is written instead.
function methods.rom(self, data, places, name)
  local rom = { data = data, places = {}, buffer = false }
  for _, place in ipairs(places) do
    local hole = unmapped(self, place.gpa, place.size)
    if not hole then
      self:put(place.gpa, data:sub(place.offset + 1, place.offset + place.size), name)
    else
      for _, region in ipairs(self.regions) do
        if overlaps(region, place.gpa, place.size) then
          refuse(self, "not_found", "%s, 0x%x to 0x%x, is mapped in part, and not at 0x%x: all "
            .. "of it or nothing expected", name, place.gpa, place.gpa + place.size, hole)
        end
      end
      check_free(self, place.gpa, place.size, name)
      self.taken[#self.taken + 1] = { gpa = place.gpa, size = place.size, name = name,
        rights = "r-x" }
      rom.places[#rom.places + 1] = place
    end
  end
  if #rom.places > 0 then self.roms[#self.roms + 1] = rom end
end

-- ---- Places ----

-- What is left of [from, last) besides the ranges of a list, as a list of { from, last }.
local function without(from, last, list)
  local free = { { from, last } }
  for _, range in ipairs(list) do
    local next_free = {}
    for _, one in ipairs(free) do
      if not overlaps(range, one[1], one[2] - one[1]) then
        next_free[#next_free + 1] = one
      else
        if one[1] < range.gpa then next_free[#next_free + 1] = { one[1], range.gpa } end
        local behind = range.gpa + range.size
        if behind < one[2] then next_free[#next_free + 1] = { behind, one[2] } end
      end
    end
    free = next_free
  end
  return free
end

local function is_ram(region)
  return region.rights:find("w", 1, true) ~= nil
end

-- The ranges of RAM in order of address: regions that continue each other as one.
local function ram_of(self)
  local list = {}
  for _, region in ipairs(self.regions) do
    if is_ram(region) then
      local last = list[#list]
      if last and last.gpa + last.size == region.gpa then
        last.size = last.size + region.size
      else
        list[#list + 1] = { gpa = region.gpa, size = region.size }
      end
    end
  end
  return list
end

-- The lowest or highest place in a free range, or nil.
local function fit(range, want)
  local from, last = math.max(range[1], want.low), math.min(range[2], want.high)
  local gpa = want.top and floor((last - want.size) / want.alignment) * want.alignment
    or reader.align(from, want.alignment)
  return gpa >= from and gpa + want.size <= last and gpa or nil
end

--- A free place in RAM: want.size bytes, a multiple of want.alignment, from want.low to want.high,
--- the highest with want.top; nil where there is none.
function methods.find(self, want)
  local found
  local busy = { { gpa = VIDEO, size = BIOS_END - VIDEO } }
  for _, list in ipairs { self.taken, self.systems } do
    for _, one in ipairs(list) do busy[#busy + 1] = one end
  end
  for _, region in ipairs(ram_of(self)) do
    for _, range in ipairs(without(region.gpa, region.gpa + region.size, busy)) do
      local gpa = fit(range, want)
      if gpa and (not found or (gpa > found) == (want.top or false)) then found = gpa end
    end
  end
  return found
end

--- Puts data into a free place; refused where there is none. Gives the place. Data that holds
--- addresses of itself is a function, which gives it for a place.
function methods.place(self, data, name, want)
  want.size = want.size or #(type(data) == "function" and data(0) or data)
  want.alignment, want.low = want.alignment or 16, want.low or 0x1000
  want.high = want.high or 2 ^ 32
  local gpa = self:find(want)
  if not gpa then
    refuse(self, "not_found", "%s needs 0x%x free bytes of writable memory between 0x%x and "
      .. "0x%x: there is no such place; map more memory", name, want.size, want.low, want.high)
  end
  return self:put(gpa, type(data) == "function" and data(gpa) or data, name, want.size)
end

-- ---- What the guest is told ----

--- The memory map, in order of address: { gpa, size, type }, type 1 for RAM, 2 for what is
--- reserved, as the e820 call of a BIOS counts them.
function methods.memory_map(self)
  local list, systems = {}, self.systems
  local function add(gpa, size, kind)
    list[#list + 1] = { gpa = gpa, size = size, type = kind }
  end
  local reserved = { { gpa = VIDEO, size = BIOS_END - VIDEO } }
  for _, system in ipairs(systems) do reserved[#reserved + 1] = system end
  for _, range in ipairs(ram_of(self)) do
    local last = range.gpa + range.size
    for _, free in ipairs(without(range.gpa, last, reserved)) do
      add(free[1], free[2] - free[1], 1)
    end
    for _, one in ipairs(reserved) do
      local from, to = math.max(range.gpa, one.gpa), math.min(last, one.gpa + one.size)
      if from < to then add(from, to - from, 2) end
    end
  end
  for _, region in ipairs(self.regions) do
    if not is_ram(region) then add(region.gpa, region.size, 2) end
  end
  table.sort(list, function(a, b) return a.gpa < b.gpa end)
  return list
end

--- KiB of RAM from 0 on, below 640 KiB, and from 1 MiB on.
function methods.lower_upper(self)
  local lower, upper = 0, 0
  for _, range in ipairs(self:memory_map()) do
    if range.type == 1 and range.gpa == 0 then
      lower = floor(math.min(range.size, VIDEO) / 1024)
    end
    if range.type == 1 and range.gpa <= BIOS_END and range.gpa + range.size > BIOS_END then
      upper = floor((range.gpa + range.size - BIOS_END) / 1024)
    end
  end
  return lower, math.min(upper, 2 ^ 32 - 1)
end

-- ---- Carrying it out ----

local function must(self, ok, message, code)
  if ok == nil then refuse(self, code, "%s", message) end
  return ok
end

-- Writes a byte of each piece as it is: memory that is read-only to the host, or gone, shows before
-- anything has changed.
local function try(self)
  for _, piece in ipairs(self.pieces) do
    for _, gpa in ipairs { piece.gpa, piece.gpa + piece.size - 1 } do
      local byte = must(self, self.space:try_read(gpa, 1))
      must(self, self.space:try_write(gpa, byte))
    end
  end
end

local function map_roms(self)
  for _, rom in ipairs(self.roms) do
    rom.buffer = must(self, buffers.new { size = #rom.data })
    rom.buffer:write(0, rom.data)
    must(self, self.space:update(function(update)
      for _, place in ipairs(rom.places) do
        update:map(rom.buffer, place.gpa, { offset = place.offset, size = place.size,
          rights = "r-x" })
      end
    end))
  end
end

local function zero(self, gpa, size)
  while size > 0 do
    local count = math.min(size, CHUNK)
    must(self, self.space:try_write(gpa, ("\0"):rep(count)))
    gpa, size = gpa + count, size - count
  end
end

--- Maps and writes everything.
function methods.commit(self)
  try(self)
  map_roms(self)
  for _, piece in ipairs(self.pieces) do
    must(self, self.space:try_write(piece.gpa, piece.data))
    zero(self, piece.gpa + #piece.data, piece.size - #piece.data)
  end
end

--- The buffers that the plan has mapped.
function methods.buffers(self)
  local list = {}
  for _, rom in ipairs(self.roms) do list[#list + 1] = rom.buffer end
  return list
end

return { new = new }
