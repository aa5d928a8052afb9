-- SPDX-License-Identifier: MIT
-- MSRs: all that KVM can filter come here, and are served for a vCPU that may access them; others
-- end its run.

local luna = require "lunavisor"
local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"
local exits = require "lunavisor.hv.exit"
local machine = require "lunavisor.hv.machine"

local fail, try, has = call.fail, call.try, call.has

local READ_WRITE = constants.MSR_READ + constants.MSR_WRITE

-- What KVM knows of: the low MSRs without those of the x2APIC, which it does not filter, those of
-- Hyper-V and of KVM, and the two ranges of AMD64.
local ranges = {
  { 0x0, 0x800 }, { 0x900, 0x1700 }, { 0x40000000, 0x1000 }, { 0x4b564d00, 0x100 },
  { 0xc0000000, 0x2000 }, { 0xc0010000, 0x2000 },
}

-- ---- Exits ----

-- Does the access if the vCPU that runs may, or ends its run with what exits.lua puts back.
local function serve(msr, access, right, value)
  local v = machine.running
  local cpu = v.cpu
  if has(v.msrs[msr] or 0, right) then
    local ok, result = pcall(function()
      if access == "r" then return cpu.msr[msr] end
      cpu.msr[msr] = value
    end)
    if not ok then return "refuse" end
    return result
  end
  cpu:stop(exits.snapshot(cpu, access))
  return u64.exact(0)
end

local function device(first)
  return {
    read = function(_, offset) return serve(first + offset, "r", constants.MSR_READ) end,
    write = function(_, offset, _, value)
      if serve(first + offset, "w", constants.MSR_WRITE, value) == "refuse" then
        return "refuse"
      end
    end,
  }
end

function machine.begin(vm)
  for _, range in ipairs(ranges) do
    local trap, message, code = try(vm.msr, vm, range[1], range[2], device(range[1]))
    if not trap then return nil, message, code end
  end
  return true
end

-- ---- Values ----

-- Of a vCPU; "bad_argument" for an MSR that KVM does not have.
local function value_of(v, msr)
  return try(function() return v.cpu.msr[msr] end)
end

local function enable(v, msr, on, flags)
  local value, message = value_of(v, msr)
  if value == nil then return nil, message, "unsupported" end
  v.msrs[msr] = on and flags or nil
  return true
end

local function set_access(v, msr, flags)
  if not call.within(flags, READ_WRITE) or not v.msrs[msr] then
    return fail("bad_argument", "cannot give access 0x%x to MSR 0x%x: it was not enabled, or there "
      .. "is no such access", flags, msr)
  end
  v.msrs[msr] = flags
  return true
end

-- ---- What the guest's MSRs have ----

-- By number of VMX_INFO_* and VMX_VALID_*: the MSR; of the first two, its value is told.
local infos = { [0] = 0x10a, 0x345, 0x186, 0x38d, 0x38f, 0x38e, 0x1d9, 0x48, 0x48 }

-- The bits that KVM takes and keeps.
local function settable(cpu, msr)
  local bits = u64.exact(0)
  for bit = 0, 63 do
    local one = u64.lshift(1, bit)
    if pcall(function() cpu.msr[msr] = one end) then
      bits = u64.bor(bits, u64.band(cpu.msr[msr], one))
    end
  end
  return bits
end

local function ask(info)
  local vm = assert(luna.vm())
  local ok, value = pcall(function()
    local cpu, msr = vm:vcpu(), infos[info]
    local value = cpu.msr[msr]
    if info <= constants.VMX_INFO_MSR_IA32_PERF_CAPABILITIES then return value end
    if info == constants.VMX_NEED_MSR_IA32_SPEC_CTRL then return u64.exact(0) end
    return settable(cpu, msr)
  end)
  vm:close()
  if ok then return value end
  return fail("unsupported", "%s", value)
end

return function(hv)
  local function define(...) call.define(hv, ...) end

  --- Lets the guest read and write an MSR without an exit, or takes that back.
  define("vcpu_enable_native_msr", { "vcpu", "msr", "enable" }, function(v, msr, on)
    return enable(v, msr, on, READ_WRITE)
  end)

  --- Announces an MSR for vcpu_set_msr_access, or forgets it and what was allowed.
  define("vcpu_enable_managed_msr", { "vcpu", "msr", "enable" }, function(v, msr, on)
    return enable(v, msr, on, constants.MSR_NONE)
  end)

  --- What the guest may do (MSR_*) with an MSR that was announced.
  define("vcpu_set_msr_access", { "vcpu", "msr", "flags" }, set_access)

  --- The value of an MSR that KVM has, announced or not.
  define("vcpu_read_msr", { "vcpu", "msr" }, value_of)
  define("vcpu_write_msr", { "vcpu", "msr", "value" }, function(v, msr, value)
    return try(function() v.cpu.msr[msr] = value return true end)
  end)

  --- What an MSR of the guest has (VMX_INFO_*, VMX_VALID_*, VMX_NEED_*), found on a vCPU of its
  --- own. Needs no VM.
  define("vmx_get_msr_info", { "info" }, function(info)
    if not infos[info] then
      return fail("bad_argument", "there is no information %d about MSRs", info)
    end
    return ask(info)
  end)
end
