-- SPDX-License-Identifier: MIT
-- Traps: ranges of ports, guest-physical addresses or MSRs that belong to a device.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local keep = require "lunavisor.keep"
local class = require "lunavisor.class"
local buffers = require "lunavisor.memory.buffer"
local hidden = require "lunavisor.vm.hidden"
local dispatch = require "lunavisor.exit.dispatch"
local trace = require "lunavisor.exit.trace"

local Trap = class.class "trap"
local mine = class.checker(Trap)
local methods = {}
local M = { class = Trap }

local kinds = { pio = 0, mmio = 1, msr = 2 } -- luna_trap_kind

local function check_memory(what, device)
  if device.read ~= nil or device.write ~= nil then
    error(("%s: the device has memory and functions: one or the other expected"):format(what), 4)
  end
  check.object(what .. ": device.memory", device.memory, buffers.class, 3)
  check.whole(what .. ": device.offset", device.offset or 0, 0, nil, 3)
end

local access_functions = { "read", "write" }
local port_functions = { "read", "write", "read_block", "write_block" }

-- A part of a device, which may raise for it, as a class of the kit does.
local function part_of(what, device, name)
  local ok, value = pcall(function() return device[name] end)
  if not ok then error(("%s: %s"):format(what, (value:gsub("^[^\n]-:%d+: ", ""))), 4) end
  return value
end

-- A mistyped name among those of a device without functions.
local function mistyped(device, functions)
  local set = {}
  for _, name in ipairs(functions) do set[name] = true end
  for name in pairs(device) do
    local hint = class.hint(name, set)
    if hint ~= "" then return (", but %s%s"):format(name, hint) end
  end
  return ""
end

--- Refuses what is no device; `blocks`: it may have functions for blocks.
local function check_device(what, device, blocks)
  local known = class.of(device)
  if type(device) ~= "table" or known and known ~= "explorer" then
    error(("%s: a device expected (a table with read and/or write, or memory), got %s%s")
      :format(what, class.describe(device), known == "buffer"
        and "; write { memory = buffer } for one" or ""), 3)
  end
  if device.memory ~= nil then
    check_memory(what, device)
    return
  end
  local functions, found = blocks and port_functions or access_functions, false
  for _, name in ipairs(functions) do
    local fn = part_of(what, device, name)
    if fn ~= nil then
      check.callable(("%s: device.%s"):format(what, name), fn, 2)
      found = true
    end
  end
  if not found then
    error(("%s: the device has neither a read nor a write function%s"):format(what,
      mistyped(device, functions)), 3)
  end
end

local function claim(vm, kind, first, length, device)
  if device.memory then
    return raw.trap_memory(vm, kind, first, length, device.memory, device.offset or 0)
  end
  return raw.trap(vm, kind, first, length)
end

-- The trap with that number, known to the VM.
local function note(vm, id, kind, first, length, device, where)
  local trap = setmetatable({ vm = vm, id = id, kind = kind, first = first, length = length,
    device = device, where = where }, Trap)
  vm.traps[id] = trap
  -- An access to a memory trap comes to Lua only where the memory cannot answer it: nobody's.
  vm.hits[id] = 0
  if vm.meter then vm.meter:trap(trap) end
  M.install(trap)
  return trap
end

--- Lets a trap's device answer; or what watches it, which is given the function that answers.
function M.install(trap)
  local vm, id, device = trap.vm, trap.id, trap.device
  if device.memory then return end
  local special = dispatch.special(trap.kind, device)
  local watched = vm.watchers and vm.watchers(trap, special
    or function(_, offset, size, value, access)
      return dispatch.serve(device, offset, size, value, access)
    end)
  vm.special[id] = watched or special
  vm.served[id] = not vm.special[id] and device or nil
end

-- The VM forgets a trap.
local function forget(vm, trap_id)
  local trap = vm.traps[trap_id]
  if trap then rawset(trap, "last_hits", vm.hits[trap_id]) end
  vm.traps[trap_id], vm.served[trap_id], vm.special[trap_id], vm.hits[trap_id] = nil, nil, nil, nil
end

--- Claims a range for a device. The trap, or nil, message, code.
local function add(vm, kind, first, length, device, coalesced)
  local where = trace.here()
  local function drop(id)
    if vm[1] then raw.untrap(vm, id) end
    forget(vm, id)
  end
  return keep(drop, function(id)
    if coalesced then
      local ok, message, code = raw.coalesce(vm, id)
      if not ok then
        drop(id)
        return nil, message, code
      end
    end
    return note(vm, id, kind, first, length, device, where)
  end, claim, vm, kinds[kind], first, length, device)
end

--- Gives the range back; a device may close its own trap. Doing it twice is fine. nil, message,
--- code where KVM refuses, and the trap stays.
function methods.close(self)
  mine(self)
  local vm = self.vm
  if vm[1] and vm.traps[self.id] == self then
    local ok, message, code = raw.untrap(vm, self.id)
    -- An error may have come here before: then the core has none any more.
    if not ok and code ~= "not_found" then return check.result(nil, message, code) end
    forget(vm, self.id)
  end
  self.closed = true
  return true
end

class.define(Trap, methods, "vm id kind first length device where closed", "last_hits")
class.computed(Trap, {
  --- How many accesses have come to the device, but for those that the core answers.
  hits = function(self) return rawget(self, "last_hits") or self.vm.hits[self.id] or 0 end,
})

Trap.__close = methods.close

function Trap.__tostring(self)
  local why = not self.closed and self.vm[1]
    and hidden.why(self.vm, self.kind, self.first, self.length, self.device)
  return ("trap %d (%s 0x%x..0x%x%s)"):format(self.id, self.kind, self.first,
    self.first + self.length - 1, self.closed and ", closed" or why and ", but " .. why or "")
end

M.check, M.add = check_device, add

return M
