-- SPDX-License-Identifier: MIT
-- Mapping buffers into the guest, and buffers made for that.

local luna = require "lunavisor"
local check = require "lunavisor.check"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"
local machine = require "lunavisor.hv.machine"

local fail, try, has, band = call.fail, call.try, call.has, call.band

local RIGHTS = 7                 -- READ, WRITE, EXEC
local LIMITS, SHIFT = 0x1e0, 32  -- the MAXPROT_* bits, and how far they are from the plain ones
local KNOWN = 0x1ff

local function limit_in(flags)
  if not has(flags, constants.MEMORY_MAXPROT) then return nil end
  return band((flags - flags % SHIFT) / SHIFT, RIGHTS)
end

local function check_flags(flags)
  local limit = limit_in(flags)
  if not call.within(flags, KNOWN) or band(flags, LIMITS) ~= 0 and not limit then
    return fail("bad_argument", "memory flags 0x%x: unknown ones, or MAXPROT_* without MAXPROT",
      flags)
  elseif has(flags, constants.MEMORY_UEXEC) and not has(flags, constants.MEMORY_EXEC) then
    return fail("unsupported", "KVM does not tell user execution from EXEC: ask for both")
  elseif limit and not call.within(band(flags, RIGHTS), limit) then
    return fail("denied", "memory flags 0x%x ask for more than their MAXPROT allows", flags)
  end
  return true
end

local function rights_text(flags)
  return check.rights_text(band(flags, RIGHTS))
end

local function space_of(asid)
  local entry = machine.spaces[asid]
  if entry then return entry.space end
  return fail("bad_argument", "there is no space %d", asid)
end

-- The regions of the space that lie in [gpa, gpa + size), or partly.
local function regions_in(space, gpa, size)
  local list = {}
  for _, region in ipairs(space:regions()) do
    if region.gpa < gpa + size and region.gpa + region.size > gpa then
      list[#list + 1] = region
    end
  end
  return list
end

local function map(asid, buffer, gpa, size, flags)
  local ok, message, code = check_flags(flags)
  local space
  if ok then space, message, code = space_of(asid) end
  if not space then return nil, message, code end
  ok, message, code = try(space.map, space, buffer, gpa, size, rights_text(flags),
    { strict = machine.has(constants.VM_STRICT_EXEC) })
  if not ok then
    local taken = code == "bad_argument" and gpa % 4096 == 0 and size % 4096 == 0
      and size > 0 and size <= buffer.size and #regions_in(space, gpa, size) > 0
    return nil, message, taken and "busy" or code
  end
  local limit = limit_in(flags)
  if limit then machine.add_limit(asid, gpa, size, limit) end
  return true
end

-- What of the range is mapped, as one change.
local function unmap_pieces(space, gpa, size)
  local regions = regions_in(space, gpa, size)
  if #regions == 0 then return true end
  return try(space.update, space, function(update)
    for _, region in ipairs(regions) do
      local first = math.max(region.gpa, gpa)
      update:unmap(first, math.min(region.gpa + region.size, gpa + size) - first)
    end
  end)
end

local function unmap(asid, gpa, size)
  local space, message, code = space_of(asid)
  if not space then return nil, message, code end
  if gpa % 4096 ~= 0 or size % 4096 ~= 0 or size == 0 or gpa + size > 2 ^ 52 then
    return fail("bad_argument", "cannot unmap 0x%x bytes at gpa 0x%x: multiples of 4096 expected, "
      .. "size not 0", size, gpa)
  end
  local ok = try(space.unmap, space, gpa, size) -- raises where there are holes
  if not ok then ok, message, code = unmap_pieces(space, gpa, size) end
  if not ok then return nil, message, code end
  machine.cut_limits(asid, gpa, size)
  return true
end

local function protect(asid, gpa, size, flags)
  local ok, message, code = check_flags(flags)
  local space
  if ok then space, message, code = space_of(asid) end
  if not space then return nil, message, code end
  local most = machine.limit_of(asid, gpa, size)
  if not call.within(band(flags, RIGHTS), most) then
    return fail("denied", "cannot give gpa 0x%x the rights %s: it was mapped with a MAXPROT of %s",
      gpa, rights_text(flags), rights_text(most))
  end
  ok, message, code = try(space.protect, space, gpa, size, rights_text(flags),
    { strict = machine.has(constants.VM_STRICT_EXEC) })
  if not ok then return nil, message, code end
  local limit = limit_in(flags)
  if limit then
    machine.cut_limits(asid, gpa, size)
    machine.add_limit(asid, gpa, size, band(limit, most))
  end
  return true
end

local allocated = setmetatable({}, { __mode = "k" }) -- a set of buffers

return function(hv)
  local function define(...) call.define(hv, ...) end

  --- Lets the guest see the first `size` bytes of a buffer at gpa of a space, with the rights of
  --- flags (MEMORY_*); both are multiples of 4096. "busy" where something is mapped. The memory
  --- lives until it is unmapped.
  define("vm_map_space", { "vm", "asid", "buffer", "gpa", "size", "flags" }, map)

  --- Takes the pages of [gpa, gpa + size) away; those that are not mapped are passed over.
  define("vm_unmap_space", { "vm", "asid", "gpa", "size" }, unmap)

  --- Gives the pages other rights: "bad_argument" if not all are mapped, "denied" for a right that
  --- MEMORY_MAXPROT withholds.
  define("vm_protect_space", { "vm", "asid", "gpa", "size", "flags" }, protect)

  --- The same for VM_SPACE_DEFAULT.
  define("vm_map", { "vm", "buffer", "gpa", "size", "flags" }, function(...)
    return map(constants.VM_SPACE_DEFAULT, ...)
  end)
  define("vm_unmap", { "vm", "gpa", "size" }, function(...)
    return unmap(constants.VM_SPACE_DEFAULT, ...)
  end)
  define("vm_protect", { "vm", "gpa", "size", "flags" }, function(...)
    return protect(constants.VM_SPACE_DEFAULT, ...)
  end)

  --- A buffer of `size` zeroed bytes, a multiple of 4096. Needs no VM.
  define("vm_allocate", { "size", "flags?" }, function(size, flags)
    if (flags or 0) ~= constants.ALLOCATE_DEFAULT then
      return fail("bad_argument", "there are no flags 0x%x of memory", flags)
    end
    local made, message, code = try(luna.buffer, size)
    if made then allocated[made] = true end
    return made, message, code
  end)

  --- Closes a buffer of vm_allocate, whose size may be said again. Needs no VM.
  define("vm_deallocate", { "buffer", "size?" }, function(buffer, size)
    if not allocated[buffer] or size and size ~= buffer.size then
      return fail("bad_argument", "hv.vm_allocate did not give that buffer with that size")
    end
    allocated[buffer] = nil
    buffer:close()
    return true
  end)
end
