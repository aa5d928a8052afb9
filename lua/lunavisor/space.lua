-- SPDX-License-Identifier: MIT
-- A guest-physical address space: what is mapped in it.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local buffers = require "lunavisor.buffer"

local Space = { __name = "space" }
local methods = {}

local function new(vm, id)
  return setmetatable({ vm = vm, id = id }, Space)
end

local function region_at(self, gpa)
  local first, size, buffer, offset, rights, enforced, slot = raw.next_region(self.vm, self.id, gpa)
  if not first then return nil end
  return {
    gpa = first, size = size, buffer = buffers.by_id[buffer], buffer_id = buffer,
    offset = offset, rights = check.rights_text(rights),
    enforced = check.rights_text(enforced), slot = slot >= 0 and slot or nil,
  }
end

--- Maps a buffer into this space: see vm:map_space.
function methods.map(self, buffer, offset, gpa, size, rights)
  check.object("space:map: buffer", buffer, buffers.class)
  offset = check.whole("space:map: offset", offset, 0)
  gpa = check.whole("space:map: gpa", gpa, 0)
  size = check.size("space:map: size", size)
  rights = check.rights("space:map: rights", rights)
  return check.result(raw.map(self.vm, self.id, buffer, offset, gpa, size, rights))
end

--- Unmaps the pages of [gpa, gpa + size), all of which must be mapped.
function methods.unmap(self, gpa, size)
  gpa = check.whole("space:unmap: gpa", gpa, 0)
  size = check.size("space:unmap: size", size)
  return check.result(raw.unmap(self.vm, self.id, gpa, size))
end

--- The region that holds `gpa`, or nil: a table with gpa, size, buffer, buffer_id, offset, rights,
--- enforced (the rights that the guest really has) and slot (nil where no KVM slot is needed).
function methods.find(self, gpa)
  gpa = check.whole("space:find: gpa", gpa, 0)
  local region = region_at(self, gpa)
  return region and region.gpa <= gpa and region or nil
end

--- The regions in order of address, as find gives them.
function methods.regions(self)
  local list, gpa = {}, 0
  while true do
    local region = region_at(self, gpa)
    if not region then return list end
    list[#list + 1] = region
    gpa = region.gpa + region.size
  end
end

Space.__index = methods

local function line(region)
  local buffer = ("buffer %d"):format(region.buffer_id)
  return ("%012x-%012x %s %s %s+0x%x%s"):format(region.gpa, region.gpa + region.size,
    region.rights, region.enforced, buffer, region.offset,
    region.slot and (" slot %d"):format(region.slot) or "")
end

--- One line a region, like /proc/self/maps: gpa range, rights asked, rights enforced, buffer,
--- offset, slot.
function Space.__tostring(self)
  if not raw.is_open(self.vm) then return "space (closed)" end
  local lines = { ("space %d"):format(self.id) }
  for _, region in ipairs(methods.regions(self)) do lines[#lines + 1] = line(region) end
  return table.concat(lines, "\n")
end

return { new = new, class = Space }
