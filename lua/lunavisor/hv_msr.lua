-- SPDX-License-Identifier: MIT
-- The Hypervisor framework's calls for MSRs: function(hv, shared). All exit; those that a vCPU may
-- access are served when they do.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"

local MSR = 2 -- luna_trap_kind

-- The MSRs that KVM and its filter know; the x2APIC's are not filtered, all others exit as unknown.
local ranges = {
  { 0x0, 0x800 }, { 0x900, 0x1700 }, { 0x40000000, 0x1000 }, { 0x4b564d00, 0x100 },
  { 0xc0000000, 0x2000 }, { 0xc0010000, 0x2000 },
}

return function(hv, shared)
  local fail, result, vcpu_of = shared.fail, shared.result, shared.vcpu

  local create = hv.vm_create

  function hv.vm_create(options)
    options = check.whole("hv.vm_create: options", options or 0, 0)
    local done, message, code = create(options)
    if not done then return nil, message, code end
    local vm = hv.vm()
    for _, range in ipairs(ranges) do
      done, message, code = raw.trap(vm, MSR, range[1], range[2])
      if not done then
        hv.vm_destroy()
        return result(nil, message, code)
      end
    end
    return true
  end

  local function index_of(what, index)
    return check.whole(what .. ": msr", index, 0, 2 ^ 32 - 1, 2)
  end

  local function enable(what, id, index, on, flags)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    check.flag(what .. ": enable", on, 2)
    local known
    known, message, code = raw.get_msr(vcpu.cpu, index)
    if known == nil then
      if code == "not_found" then return fail(hv.UNSUPPORTED, "%s", message) end
      return result(nil, message, code)
    end
    vcpu.msrs[index] = on and flags or nil
    return true
  end

  --- Lets the guest access the MSR, or no longer.
  function hv.vcpu_enable_native_msr(id, msr, on)
    msr = index_of("hv.vcpu_enable_native_msr", msr)
    local done, message, code = enable("hv.vcpu_enable_native_msr", id, msr, on,
      hv.MSR_READ + hv.MSR_WRITE)
    return done, message, code
  end

  --- Announces it, for hv.vcpu_set_msr_access, or forgets it.
  function hv.vcpu_enable_managed_msr(id, msr, on)
    msr = index_of("hv.vcpu_enable_managed_msr", msr)
    local done, message, code = enable("hv.vcpu_enable_managed_msr", id, msr, on, hv.MSR_NONE)
    return done, message, code
  end

  --- What the guest may do with an MSR that was announced.
  function hv.vcpu_set_msr_access(id, msr, flags)
    msr = index_of("hv.vcpu_set_msr_access", msr)
    flags = check.whole("hv.vcpu_set_msr_access: flags", flags, 0)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if flags > hv.MSR_READ + hv.MSR_WRITE or not vcpu.msrs[msr] then
      return fail(hv.BAD_ARGUMENT, "MSR 0x%x was not enabled, or there is no access 0x%x", msr,
        flags)
    end
    vcpu.msrs[msr] = flags
    return true
  end

  --- Its value: u64.
  function hv.vcpu_read_msr(id, msr)
    msr = index_of("hv.vcpu_read_msr", msr)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return result(raw.get_msr(vcpu.cpu, msr))
  end

  function hv.vcpu_write_msr(id, msr, value)
    msr = index_of("hv.vcpu_write_msr", msr)
    value = shared.u64("hv.vcpu_write_msr: value", value)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return result(raw.set_msr(vcpu.cpu, msr, value))
  end
end
