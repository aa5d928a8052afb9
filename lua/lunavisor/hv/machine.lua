-- SPDX-License-Identifier: MIT
-- The one VM of the process: what it has, who owns its vCPUs, what MAXPROT withholds.

local luna = require "lunavisor"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"

local fail = call.fail

local M = {
  vm = nil,       -- there is none
  options = 0,    -- VM_*
  spaces = {},    -- by number: { space =, bound = how many vCPUs are, or were when destroyed }
  vcpus = {},     -- by number
  running = nil,  -- the vCPU that runs, or ran last
  notifiers = {}, -- by port
  ioapic = nil,   -- of ioapic.lua
  pics = nil,     -- of atpic.lua, with VM_ACCEL_APIC
  limits = {},    -- a list of { space =, first =, last = (behind it), rights = }
}

local function clear()
  M.vm, M.options, M.running = nil, 0, nil
  M.spaces, M.vcpus, M.notifiers, M.limits = {}, {}, {}, {}
end

--- Whether the VM was made with the option.
function M.has(option)
  return call.has(M.options, option)
end

function M.create(options)
  if M.vm then return fail("busy", "this process has a VM already, and can have one") end
  local accelerated = call.has(options, constants.VM_ACCEL_APIC)
  local vm, message, code = call.try(luna.vm,
    { irqchip = accelerated and "split" or "none", unknown_msrs = "exit" })
  if not vm then return nil, message, code end
  local ok
  ok, message, code = M.begin(vm)
  if not ok then
    vm:close()
    return nil, message, code
  end
  M.vm, M.options = vm, options
  M.ioapic = M.make_ioapic()
  M.pics = accelerated and M.make_atpic() or nil
  M.spaces[0] = { space = vm.default, bound = 0 }
  return true
end

--- Set by msr.lua: what is done to a VM that is made; by ioapic.lua and atpic.lua: fresh states.
M.begin, M.make_ioapic, M.make_atpic = nil, nil, nil

-- ---- vCPUs ----

local function current()
  return coroutine.running() or "main"
end

--- A mark of the running coroutine; it is held weakly.
function M.owner()
  return setmetatable({ (current()) }, { __mode = "v" })
end

-- Whether the coroutine that made it is no more.
local function orphaned(v)
  local owner = v.owner[1]
  return owner == nil or owner ~= "main" and coroutine.status(owner) == "dead"
end

--- Destroys the vCPU. One that was bound stays counted where it was.
function M.release(v)
  M.vcpus[v.id] = nil
  v.cpu:close()
end

-- A vCPU goes with its owner.
local function sweep()
  for _, v in pairs(M.vcpus) do
    if orphaned(v) then M.release(v) end
  end
end

--- The vCPU, whoever owns it.
function M.find(id)
  local v = M.vcpus[id]
  if v and orphaned(v) then
    M.release(v)
    v = nil
  end
  if v then return v end
  return fail("bad_argument", "there is no vCPU %d", id)
end

--- The vCPU that the running coroutine owns, or nil.
function M.own()
  sweep()
  for _, v in pairs(M.vcpus) do
    if v.owner[1] == current() then return v end
  end
end

function call.needs.vm()
  if M.vm then return true end
  return fail("no_device", "there is no VM in this process: call hv.vm_create first")
end

function call.needs.vcpu(id)
  local ok, message, code = call.needs.vm()
  if not ok then return nil, message, code end
  if not id then return fail("bad_argument", "there is no such vCPU") end
  local v
  v, message, code = M.find(id)
  if not v then return nil, message, code end
  if v.owner[1] ~= current() then
    return fail("denied", "vCPU %d belongs to another coroutine", id)
  end
  return v
end

function M.destroy()
  sweep()
  local id = next(M.vcpus)
  if id then
    return fail("busy", "cannot destroy the VM: it has vCPU %d; destroy it first", id)
  end
  M.vm:close()
  clear()
  return true
end

-- ---- MAXPROT ----

--- Takes [gpa, gpa + size) out of what is limited.
function M.cut_limits(space, gpa, size)
  local last, kept = gpa + size, {}
  for _, limit in ipairs(M.limits) do
    if limit.space ~= space or limit.last <= gpa or limit.first >= last then
      kept[#kept + 1] = limit
    else
      for _, part in ipairs { { limit.first, gpa }, { last, limit.last } } do
        if part[1] < part[2] then
          kept[#kept + 1] = { space = space, first = part[1], last = part[2],
            rights = limit.rights }
        end
      end
    end
  end
  M.limits = kept
end

function M.add_limit(space, gpa, size, rights)
  M.limits[#M.limits + 1] = { space = space, first = gpa, last = gpa + size, rights = rights }
end

--- The rights that all of the range may have, as bits: r 1, w 2, x 4.
function M.limit_of(space, gpa, size)
  local rights = 7
  for _, limit in ipairs(M.limits) do
    if limit.space == space and limit.last > gpa and limit.first < gpa + size then
      rights = call.band(rights, limit.rights)
    end
  end
  return rights
end

function M.drop_limits(space)
  M.cut_limits(space, 0, 2 ^ 53)
end

return M
