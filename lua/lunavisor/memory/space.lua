-- SPDX-License-Identifier: MIT
-- A guest-physical address space: its map, its memory as the guest sees it, the faults in it.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local map = require "lunavisor.memory.map"
local u64 = require "lunavisor.text.u64"
local buffers = require "lunavisor.memory.buffer"

local Space = class.class "space"
local mine = class.checker(Space)
local methods = {}
local FaultHandler = class.class("fault handler", "handler")

local function new(vm, id)
  return setmetatable({ vm = vm, id = id, faults = {}, closed = false }, Space)
end

-- The VM of a space that is open.
local function vm_of(self)
  mine(self, 2)
  if not self.vm[1] then error("attempt to use a closed vm", 3) end
  if self.closed then error("attempt to use a closed space", 3) end
  return self.vm
end

-- ---- The map ----

--- Maps a buffer. The forms:
---   space:map(buffer, gpa, options)
---   space:map(buffer, gpa, size, rights, options)
---   space:map(buffer, offset, gpa, size, rights, options)
--- Offset, gpa and size are multiples of 4096; size is what the buffer has behind offset where it
--- is nil. `rights` is "rwx" (where nil), "r-x" ... "---": KVM holds rwx, r-x and ---, other rights
--- get the nearest that allows them, as region.enforced tells. Options:
---   strict     the rights are exact: where KVM cannot (r--, rw-, -w-) each access is answered by
---              the library from the buffer, at the speed of a device, and no code runs there
---   separate   keeps the region apart from neighbours that continue it
---   window     space:remap can let it show another part of a memfd or file buffer
--- Returns true; nil, message, code where KVM has no slot or cannot do it. Mistakes (unaligned,
--- overlapping, beyond the buffer) raise.
function methods.map(self, buffer, ...)
  local vm = vm_of(self)
  local gpa, size, rights, offset = map.map("space:map", 2, buffer, ...)
  return check.result(raw.map(vm, self.id, buffer, offset, gpa, size, rights))
end

--- Unmaps the pages of [gpa, gpa + size), all of which must be mapped; regions are split as needed.
function methods.unmap(self, gpa, size)
  local vm = vm_of(self)
  gpa, size = map.range("space:unmap", 2, gpa, size)
  return check.result(raw.unmap(vm, self.id, gpa, size))
end

--- Gives the pages of [gpa, gpa + size), all of which must be mapped, other rights. options.strict
--- as for map.
function methods.protect(self, gpa, size, rights, options)
  local vm = vm_of(self)
  gpa, size, rights = map.protect("space:protect", 2, gpa, size, rights, options)
  return check.result(raw.protect(vm, self.id, gpa, size, rights))
end

local Update = class.class "update"
local change = class.checker(Update)
local updates = {}
local MAP, UNMAP, PROTECT = 0, 1, 2 -- luna_change_kind

function updates.map(self, buffer, ...)
  change(self)
  local gpa, size, rights, offset = map.map("update:map", 2, buffer, ...)
  self[#self + 1] = { MAP, gpa, size, rights, buffer, offset }
end

function updates.unmap(self, gpa, size)
  change(self)
  gpa, size = map.range("update:unmap", 2, gpa, size)
  self[#self + 1] = { UNMAP, gpa, size, 0 }
end

function updates.protect(self, gpa, size, rights, options)
  change(self)
  gpa, size, rights = map.protect("update:protect", 2, gpa, size, rights, options)
  self[#self + 1] = { PROTECT, gpa, size, rights }
end

class.define(Update, updates)

--- Many changes as one: fn(update) calls update:map, update:unmap and update:protect, with the
--- arguments of the methods here. They are carried out together when fn returns, all of them or
--- none, with the fewest slot operations that lead to the result. If fn raises, nothing is changed.
function methods.update(self, fn)
  local vm = vm_of(self)
  check.callable("space:update", fn)
  local changes = setmetatable({}, Update)
  fn(changes)
  return check.result(raw.update(vm, self.id, changes))
end

--- Lets the window (mapped with window = true) that begins at `gpa` show its size of `buffer` from
--- `offset`: bank switching, without a slot operation.
function methods.remap(self, gpa, buffer, offset)
  local vm = vm_of(self)
  gpa = check.whole("space:remap: gpa", gpa, 0)
  check.object("space:remap: buffer", buffer, buffers.class)
  offset = check.size("space:remap: offset", offset or 0)
  return check.result(raw.remap(vm, self.id, gpa, buffer, offset))
end

--- Gives the space up: nil, message, "busy" while a vCPU is in it. Space 0 lives as long as its VM.
--- Doing it twice is fine.
function methods.close(self)
  mine(self)
  if self.closed or not self.vm[1] then return true end
  if self.vm.spaces[self.id] == self then
    local ok, message, code = raw.space_destroy(self.vm, self.id)
    -- An error may have come here before: then the core has none any more.
    if not ok and code ~= "not_found" then return check.result(nil, message, code) end
    self.vm.spaces[self.id] = nil
  end
  self.closed = true
  return true
end

-- ---- Looking at the map ----

local Region = class.define(class.class "region", {},
  "gpa size buffer buffer_id offset rights enforced slot strict separate window")
local Slot = class.define(class.class "slot", {}, "slot gpa size read_only")

local function region_at(self, gpa)
  local first, size, buffer, offset, rights, enforced, slot, flags =
    raw.next_region(self.vm, self.id, gpa)
  if not first then return nil end
  local region = {
    gpa = first, size = size, buffer = buffers.by_id[buffer], buffer_id = buffer,
    offset = offset, rights = check.rights_text(rights),
    enforced = check.rights_text(enforced), slot = slot >= 0 and slot or nil,
  }
  for _, name in ipairs(map.flag_names(flags)) do region[name] = true end
  return setmetatable(region, Region)
end

--- The region that holds `gpa`, or nil: a table with gpa, size, buffer (nil if the script has let
--- it go), buffer_id, offset, rights, enforced (the rights that the guest really has), slot (nil
--- where there is none), and strict, separate, window where true.
function methods.find(self, gpa)
  vm_of(self)
  gpa = check.whole("space:find: gpa", gpa, 0)
  local region = region_at(self, gpa)
  return region and region.gpa <= gpa and region or nil
end

--- The regions in order of address, as find gives them; those that have a byte of [first, last]
--- where that is given.
function methods.regions(self, first, last)
  vm_of(self)
  first = check.whole("space:regions: first", first or 0, 0)
  last = check.whole("space:regions: last", last or 2 ^ 53, first)
  local list, gpa = {}, first
  while true do
    local region = region_at(self, gpa)
    if not region or region.gpa > last then return list end
    list[#list + 1] = region
    gpa = region.gpa + region.size
  end
end

--- The KVM memory slots of the space, in order of address: tables with slot, gpa, size, read_only.
function methods.slots(self)
  vm_of(self)
  local list = {}
  for _, region in ipairs(methods.regions(self)) do
    if region.slot then
      list[#list + 1] = setmetatable({ slot = region.slot, gpa = region.gpa, size = region.size,
        read_only = region.enforced == "r-x" }, Slot)
    end
  end
  return list
end

-- ---- Memory as the guest sees it ----

--- `size` bytes from `gpa`, whatever regions they lie in and whatever rights the guest has; an
--- address that is not mapped raises, with its number.
function methods.read(self, gpa, size)
  local vm = vm_of(self)
  gpa = check.whole("space:read: gpa", gpa, 0)
  size = check.size("space:read: size", size)
  if size == 0 then return "" end
  return check.result(raw.space_read(vm, self.id, gpa, size))
end

--- Writes the bytes of a string at `gpa`; all of it must be mapped, or nothing is written.
function methods.write(self, gpa, data)
  local vm = vm_of(self)
  gpa = check.whole("space:write: gpa", gpa, 0)
  if type(data) ~= "string" then
    error(("space:write: a string expected, got %s"):format(type(data)), 2)
  end
  if data == "" then return true end
  return check.result(raw.space_write(vm, self.id, gpa, data))
end

-- An address or size that a guest chose: any whole number or u64. What is not exact is beyond every
-- map: nil, message, code.
local function chosen(what, value, name)
  local exact = u64.exact(value)
  if exact ~= nil then return exact end
  if type(value) ~= "number" or value % 1 ~= 0 or value < 0 then
    error(("%s: %s: a whole number or u64 expected, got %s"):format(what, name,
      type(value) == "number" and ("%.14g"):format(value) or type(value)), 3)
  end
  return nil, ("%s: nothing is mapped at %s %.0f, which is beyond every map"):format(what, name,
    value), "not_found"
end

local STRING_MOST = 2 ^ 31 -- the first size that no string of LuaJIT has

--- `size` bytes from `gpa`, both as a guest chose them: any whole number or u64. nil, message, code
--- where not all of it is mapped, or its host memory is gone; nothing raises but what is no number.
--- For devices that read where the guest says.
function methods.try_read(self, gpa, size)
  local vm = vm_of(self)
  local from, why, code = chosen("space:try_read", gpa, "gpa")
  if from == nil then return nil, why, code end
  local length
  length, why, code = chosen("space:try_read", size, "size")
  if length == nil then return nil, why, code end
  if not u64.lt(length, STRING_MOST) then
    return nil, ("space:try_read: 0x%s bytes at once: a string has less than 2 GiB")
      :format(u64.hex(length):sub(3)), "limit"
  end
  length = u64.tonumber(length)
  if length == 0 then return "" end
  return raw.space_read(vm, self.id, from, length)
end

--- Writes the bytes of a string at `gpa`, which a guest chose, all of them or none: true, or nil,
--- message, code as try_read.
function methods.try_write(self, gpa, data)
  local vm = vm_of(self)
  local to, why, code = chosen("space:try_write", gpa, "gpa")
  if to == nil then return nil, why, code end
  if type(data) ~= "string" then
    error(("space:try_write: a string expected, got %s"):format(type(data)), 2)
  end
  if data == "" then return true end
  return raw.space_write(vm, self.id, to, data)
end

-- space:uN(gpa) reads an unsigned little-endian integer, space:uN(gpa, value) writes one.
local function accessor(size)
  local what = "space:u" .. 8 * size
  return function(self, gpa, value)
    local vm = vm_of(self)
    gpa = check.whole(what .. ": gpa", gpa, 0)
    if value == nil then return check.result(raw.space_get(vm, self.id, gpa, size)) end
    local exact = u64.exact(value)
    if exact == nil or (size < 8 and u64.rshift(exact, 8 * size) ~= u64.exact(0)) then
      error(("%s: value %s does not fit in %d bits"):format(what, tostring(value), 8 * size), 2)
    end
    return check.result(raw.space_set(vm, self.id, gpa, size, exact))
  end
end

methods.u8, methods.u16, methods.u32, methods.u64 = accessor(1), accessor(2), accessor(4),
  accessor(8)

-- ---- Written pages ----

local PAGE = 4096

local GUEST, ONE_PAGE = 1, 2 -- luna_dirty_flag
local dirty_options = { gpa = true, size = true, host = true }

-- gpa, size and flags of the two forms of space:dirty.
local function dirty_range(vm, gpa, size)
  local flags = ONE_PAGE
  if type(gpa) == "table" then
    local options = check.options("space:dirty", gpa, dirty_options, 2)
    if size ~= nil then error("space:dirty: size belongs into the table of options", 3) end
    gpa, size = options.gpa, options.size
    if options.host ~= nil and not check.flag("space:dirty: host", options.host, 2) then
      flags = flags + GUEST
    end
  end
  gpa = check.whole("space:dirty: gpa", gpa or 0, 0, nil, 2)
  local bits = raw.capability(raw.vm_accelerator(vm), "address_bits")
  size = check.size("space:dirty: size", size or 2 ^ bits - gpa, 2)
  return gpa, size, flags
end

--- Iterates over the pages (their gpa) of [gpa, gpa + size), or of the whole space, that were
--- written since they were last handed out: by the guest, and by the host side through the buffer
--- and space API. Pages that a loop does not come to (break, an error) come with the next one. The
--- first call begins to follow the space and finds nothing. space:dirty{...} takes gpa, size, and
---   host       false: leaves out what only the host side wrote, such as what a loop that restores
---              memory writes itself; it stays for a call without
function methods.dirty(self, gpa, size)
  local vm = vm_of(self)
  local flags
  gpa, size, flags = dirty_range(vm, gpa, size)
  local ok, message = raw.dirty(vm, self.id, gpa, size)
  if not ok then error(message, 2) end
  local last = gpa + size
  return function()
    if gpa >= last then return nil end
    local page, why = raw.dirty_take(vm, self.id, gpa, last - gpa, flags)
    if page == nil then error(why, 2) end
    gpa = page and page + PAGE or last
    return page or nil
  end
end

-- ---- Faults ----

--- Calls fn(cpu, exit) for faults in [gpa, gpa + length) of this space, before any cpu:on("fault");
--- fn answers as there. The handler that was registered last goes first. Returns a handle whose
--- close() takes it away.
function methods.on_fault(self, gpa, length, fn)
  vm_of(self)
  gpa, length = map.range("space:on_fault", 2, gpa, length)
  check.callable("space:on_fault", fn)
  local handler = setmetatable({ space = self, first = gpa, last = gpa + length - 1, fn = fn },
    FaultHandler)
  table.insert(self.faults, 1, handler)
  return handler
end

local handled = {}
local taken = class.checker(FaultHandler)

function handled.close(self)
  taken(self)
  for i, handler in ipairs(self.space.faults) do
    if handler == self then return table.remove(self.space.faults, i) and nil end
  end
end

class.define(FaultHandler, handled, "space first last fn")
FaultHandler.__close = handled.close

function FaultHandler.__tostring(self)
  return ("fault handler (space %d, gpa 0x%x..0x%x)"):format(self.space.id, self.first, self.last)
end

--- The function for a fault at `gpa`, or nil.
local function fault_handler(self, gpa)
  for _, handler in ipairs(self.faults) do
    if gpa >= handler.first and gpa <= handler.last then return handler.fn end
  end
end

class.define(Space, methods, "vm id", "faults closed")
Space.__close = methods.close

local function line(region)
  local buffer = ("buffer %d"):format(region.buffer_id)
  local flags = (region.strict and " strict" or "") .. (region.separate and " separate" or "")
    .. (region.window and " window" or "")
  return ("%012x-%012x %s %s %s+0x%x%s%s"):format(region.gpa, region.gpa + region.size,
    region.rights, region.enforced, buffer, region.offset,
    region.slot and (" slot %d"):format(region.slot) or "", flags)
end

--- One line a region, like /proc/self/maps: gpa range, rights asked, rights enforced, buffer and
--- offset, slot, options.
function Space.__tostring(self)
  if self.closed or not raw.is_open(self.vm) then return "space (closed)" end
  local lines = { ("space %d"):format(self.id) }
  for _, region in ipairs(methods.regions(self)) do lines[#lines + 1] = line(region) end
  return table.concat(lines, "\n")
end

return { new = new, class = Space, fault_handler = fault_handler }
