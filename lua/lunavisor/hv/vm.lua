-- SPDX-License-Identifier: MIT
-- The VM of the process, its spaces, its limits, and writes to ports that signal.

local luna = require "lunavisor"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"
local machine = require "lunavisor.hv.machine"

local fail, try, has = call.fail, call.try, call.has

local KNOWN_OPTIONS = 0x45f + constants.VM_STRICT_EXEC -- Apple's, and ours
local KNOWN_ION = constants.ION_ANY_VALUE + constants.ION_ANY_SIZE + constants.ION_EXIT_FULL
local port_sizes = { [1] = true, [2] = true, [4] = true }

local function create_space()
  local space, message, code = try(machine.vm.space, machine.vm)
  if not space then return nil, message, code end
  machine.spaces[space.id] = { space = space, bound = 0 }
  return space.id
end

local function destroy_space(asid)
  local entry = machine.spaces[asid]
  if asid == 0 or not entry then
    return fail("bad_argument", "there is no space %d that can be destroyed", asid)
  end
  if entry.bound > 0 then
    return fail("busy", "cannot destroy space %d: vCPUs are bound to it, or were when they were "
      .. "destroyed; set them back to space 0 first", asid)
  end
  local ok, message, code = try(entry.space.close, entry.space)
  if not ok then return nil, message, code end
  machine.spaces[asid] = nil
  machine.drop_limits(asid)
  return true
end

-- ---- Writes to ports that signal ----

local function check_notifier(said)
  local flags = said.flags
  local any_value = has(flags, constants.ION_ANY_VALUE)
  local any_size = has(flags, constants.ION_ANY_SIZE)
  if not call.within(flags, KNOWN_ION) or any_size and not any_value then
    return fail("bad_argument", "no notifier has flags 0x%x (ANY_SIZE needs ANY_VALUE)", flags)
  elseif has(flags, constants.ION_EXIT_FULL) then
    return fail("unsupported", "an eventfd is never full: ION_EXIT_FULL has no meaning")
  elseif said.addr > 0xffff or said.wanted > 0xffffffff then
    return fail("bad_argument", "there is no port 0x%x, or no value 0x%x", said.addr, said.wanted)
  elseif not any_size and not port_sizes[said.size] then
    return fail("bad_argument", "no port access has %d bytes", said.size)
  end
  return true
end

-- The descriptor of a number or of an object with one; nil for none.
local function descriptor(port)
  if type(port) ~= "table" then return port end
  local fd = port.fd
  if type(fd) == "function" then fd = fd(port) end
  return fd
end

local function add_notifier(addr, size, wanted, port, flags)
  local said = { addr = addr, size = size, wanted = wanted, flags = flags }
  local ok, message, code = check_notifier(said)
  if not ok then return nil, message, code end
  if machine.notifiers[addr] then
    return fail("busy", "port 0x%x has a notifier already", addr)
  end
  local options = { port = addr, fd = descriptor(port) }
  if has(flags, constants.ION_ANY_SIZE) then options.any_size = true else options.size = size end
  if not has(flags, constants.ION_ANY_VALUE) then options.match = wanted end
  said.object, message, code = try(machine.vm.eventfd, machine.vm, options)
  if not said.object then return nil, message, code == "error" and "bad_argument" or code end
  machine.notifiers[addr] = said
  return said.object
end

local function remove_notifier(addr, size, wanted, port, flags)
  local said = machine.notifiers[addr]
  if not said or said.size ~= size or said.wanted ~= wanted or said.flags ~= flags
    or descriptor(port) ~= said.object.fd then
    return fail("bad_argument", "port 0x%x has no such notifier", addr)
  end
  said.object:close()
  machine.notifiers[addr] = nil
  return true
end

return function(hv)
  local function define(...) call.define(hv, ...) end

  --- A limit of this host: CAP_VCPUMAX or CAP_ADDRSPACEMAX. Needs no VM.
  define("capability", { "capability" }, function(capability)
    local name = ({ [0] = "vcpus_max", "spaces_max" })[capability]
    if not name then return fail("bad_argument", "there is no capability %d", capability) end
    return try(luna.capability, name)
  end)

  --- Makes the VM of this process; flags: VM_DEFAULT where nil. "busy" if there is one.
  define("vm_create", { "flags?" }, function(flags)
    flags = flags or 0
    if not call.within(flags, KNOWN_OPTIONS) then
      return fail("bad_argument", "cannot make a VM with the options 0x%x: some are unknown", flags)
    end
    return machine.create(flags)
  end)

  --- Destroys it, with its spaces, maps and notifiers. "busy" while it has a vCPU.
  define("vm_destroy", { "vm" }, machine.destroy)

  --- Makes the time-stamp counters of all vCPUs show `tsc` now.
  define("vm_sync_tsc", { "vm", "tsc" }, function(tsc)
    return try(machine.vm.sync_tsc, machine.vm, tsc)
  end)

  --- Makes a further space; its number, the lowest that is free.
  define("vm_space_create", { "vm" }, create_space)

  --- Destroys it. "busy" while a vCPU is bound to it, and for good if one was destroyed bound.
  define("vm_space_destroy", { "vm", "asid" }, destroy_space)

  --- Makes writes of `wanted` in `size` bytes to port `addr` signal an eventfd instead of exiting.
  --- port: a descriptor, an object with one (fd), or nil: one is made. Returns an object with fd
  --- and read(), which counts. flags: ION_*.
  define("vm_add_pio_notifier", { "vm", "addr", "size", "wanted", "port", "flags" }, add_notifier)

  --- Takes away what was added with the same arguments; port: the object, or its descriptor.
  define("vm_remove_pio_notifier", { "vm", "addr", "size", "wanted", "port", "flags" },
    remove_notifier)

  --- For ARM processors.
  define("sme_config_get_max_svl_bytes", {}, function()
    return fail("unsupported", "the scalable matrix extension is one of ARM processors")
  end)
end
