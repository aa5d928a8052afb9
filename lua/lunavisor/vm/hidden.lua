-- SPDX-License-Identifier: MIT
-- What keeps accesses from a device: memory that is mapped where it is to be, and the interrupt
-- controllers and timer that the accelerator has itself. Both answer before a device is asked.

local M = {}

-- ---- Memory ----

-- Whether a region has all that the device answers for. What the rights forbid comes to a device: a
-- flash chip's memory is mapped r-x.
local function hides(region, device)
  local read, write = device.read ~= nil, device.write ~= nil
  if not (read or write) then read, write = true, true end
  local rights = region.enforced
  return not (read and not rights:find "r") and not (write and not rights:find "w")
end

-- The first part of [first, last] that memory hides in all of the spaces from the list's `i` on; a
-- region that does.
local function hidden_in(spaces, i, first, last, device)
  for _, region in ipairs(spaces[i]:regions(first, last)) do
    local from = math.max(first, region.gpa)
    local to = math.min(last, region.gpa + region.size - 1)
    if from <= to and hides(region, device) then
      if not spaces[i + 1] then return region, from end
      local _, at = hidden_in(spaces, i + 1, from, to, device)
      if at then return region, at end
    end
  end
  return nil
end

local function memory(vm, first, last, device)
  local spaces = { vm.default }
  for id, space in pairs(vm.spaces) do
    if id ~= 0 then spaces[#spaces + 1] = space end
  end
  local region = hidden_in(spaces, 1, first, last, device)
  return region and ("memory is mapped at 0x%x..0x%x (%s), whose accesses come to no device; unmap "
    .. "that part first"):format(region.gpa, region.gpa + region.size - 1, region.enforced) or nil
end

-- ---- Chips ----

-- With irqchip = "kernel"; those of LAPICs too, unless the guest moves them.
local CHIPS = {
  pio = { { 0x20, 2, "a PIC" }, { 0xa0, 2, "a PIC" }, { 0x4d0, 2, "the PICs" },
    { 0x40, 4, "a PIT", pit = true }, { 0x61, 1, "a PIT", pit = true } },
  mmio = { { 0xfec00000, 0x100, "an I/O APIC" } },
}

local function chip(vm, kind, first, last)
  if vm.chips.irqchip ~= "kernel" then return nil end
  for _, one in ipairs(CHIPS[kind] or {}) do
    local to = one[1] + one[2] - 1
    if first <= to and one[1] <= last and (not one.pit or vm.chips.pit) then
      return ("%s of irqchip = 'kernel' is at 0x%x..0x%x, whose accesses come to no device; make "
        .. "the VM %s"):format(one[3], one[1], to, one.pit and "without pit"
        or "with irqchip = 'none' or 'split'")
    end
  end
  return nil
end

--- Why accesses of a device at [first, first + length) of that kind would not come to it, as text;
--- nil where they do.
function M.why(vm, kind, first, length, device)
  if length < 1 or first + length > 2 ^ 53 then return nil end -- no place at all
  local last = first + length - 1
  return chip(vm, kind, first, last) or kind == "mmio" and memory(vm, first, last, device) or nil
end

-- Whether a device has mapped memory there itself.
local function exposes(device)
  for _, region in pairs(rawget(device, "regions") or { device }) do
    if rawget(region, "exposed") then return true end
  end
  return false
end

--- The traps of a VM to which nothing has come, and why it cannot: { trap =, why = }.
function M.list(vm)
  local list = {}
  for _, trap in pairs(vm.traps) do
    local why = trap.hits == 0 and not exposes(trap.device)
      and M.why(vm, trap.kind, trap.first, trap.length, trap.device)
    if why then list[#list + 1] = { trap = trap, why = why } end
  end
  table.sort(list, function(a, b) return a.trap.id < b.trap.id end)
  return list
end

return M
