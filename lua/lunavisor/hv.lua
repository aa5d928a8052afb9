-- SPDX-License-Identifier: MIT
-- The calls of Apple's Hypervisor framework, by its names and with its numbers, for those who know
-- that API: hv.vm_map_space(asid, buffer, gpa, size, hv.MEMORY_READ + hv.MEMORY_EXEC). HV_ and hv_
-- are left out. What C writes through a pointer is returned; a call that fails gives nil, a
-- message, and the framework's code (hv.BUSY). A value of the wrong type raises.
--
-- It is the Lua API under other names: hv.vm() and hv.vcpu(id) give its objects. So memory is a
-- luna.buffer, one script may own several vCPUs, and an instruction that exited is done when the
-- vCPU runs again, by KVM: RIP need not be moved, VMCS_RO_VMEXIT_INSTR_LEN is 0, and adding it does
-- no harm. A read gets its value from what the script writes to RAX (and RDX), or from
-- hv.ext_vcpu_complete. String instructions come element by element.

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local buffers = require "lunavisor.buffer"
local vms = require "lunavisor.vm"

local floor = math.floor

local hv = {}
for name, number in pairs(require "lunavisor.hv_constants") do hv[name] = number end

-- ---- What the parts share ----

local state = {
  vm = nil,     -- the one VM
  options = 0,  -- it was made with
  vcpus = {},   -- by number
  bound = {},   -- by space: vCPUs bound to it, and those that were when they were destroyed
}

local codes = {
  argument = hv.BAD_ARGUMENT, range = hv.BAD_ARGUMENT, not_found = hv.BAD_ARGUMENT,
  overlap = hv.BUSY, busy = hv.BUSY, limit = hv.NO_RESOURCES, memory = hv.NO_RESOURCES,
  unsupported = hv.UNSUPPORTED, no_kvm = hv.UNSUPPORTED, access = hv.DENIED,
}

local shared = { state = state }

--- nil, message, code.
function shared.fail(code, message, ...)
  return nil, select("#", ...) > 0 and message:format(...) or message, code
end

local fail = shared.fail

--- The results of a raw call, with the framework's code; true for one that gives no other value.
function shared.result(value, message, code)
  if value == nil then return nil, message, codes[code] or hv.ERROR end
  return value
end

local result = shared.result

--- Whether all bits of `flags` are among those of `known`, a sum of different bits.
function shared.within(flags, known)
  local bit = 1
  while bit <= flags do
    if floor(flags / bit) % 2 == 1 and floor(known / bit) % 2 == 0 then return false end
    bit = bit * 2
  end
  return true
end

--- Whether the bit is set.
function shared.has(flags, bit)
  return floor(flags / bit) % 2 == 1
end

local within, has = shared.within, shared.has

--- The VM, or nil, message, code.
function shared.vm()
  if state.vm then return state.vm end
  return fail(hv.NO_DEVICE, "there is no VM: call hv.vm_create first")
end

local function need_vm()
  return shared.vm()
end

--- What the number names, or nil, message, code.
function shared.vcpu(id)
  local vm, message, code = need_vm()
  if not vm then return nil, message, code end
  local vcpu = state.vcpus[id]
  if vcpu then return vcpu end
  return fail(hv.BAD_ARGUMENT, "there is no vCPU %s", tostring(id))
end

local function space_of(asid)
  local vm, message, code = need_vm()
  if not vm then return nil, message, code end
  if vm.spaces[asid] then return vm.spaces[asid] end
  return fail(hv.BAD_ARGUMENT, "there is no space %s", tostring(asid))
end

shared.space = space_of

-- ---- The VM ----

local capabilities = { [hv.CAP_VCPUMAX] = "vcpus_max", [hv.CAP_ADDRSPACEMAX] = "spaces_max" }

--- HV_CAP_VCPUMAX or HV_CAP_ADDRSPACEMAX: the number.
function hv.capability(capability)
  local name = capabilities[capability]
  if not name then
    return fail(hv.BAD_ARGUMENT, "there is no capability %s", tostring(capability))
  end
  return result(raw.capability(name))
end

local vm_options = hv.VM_SPECIFY_MITIGATIONS + hv.VM_MITIGATION_A_ENABLE
  + hv.VM_MITIGATION_B_ENABLE + hv.VM_MITIGATION_C_ENABLE + hv.VM_MITIGATION_D_ENABLE
  + hv.VM_MITIGATION_E_ENABLE + hv.VM_ACCEL_APIC + hv.VM_STRICT_EXEC

--- Makes the VM. With HV_VM_ACCEL_APIC the vCPUs have local APICs in KVM; an I/O APIC and PICs are
--- the script's.
function hv.vm_create(options)
  options = check.whole("hv.vm_create: options", options or 0, 0)
  if not within(options, vm_options) then
    return fail(hv.BAD_ARGUMENT, "unknown options 0x%x", options)
  end
  if state.vm then return fail(hv.BUSY, "there is a VM already, and there can be one") end
  local vm, message, code = vms.new {
    irqchip = has(options, hv.VM_ACCEL_APIC) and "split" or "none", unknown_msrs = "exit",
  }
  if not vm then return result(nil, message, code) end
  state.vm, state.options = vm, options
  return true
end

--- Destroys it; HV_BUSY while it has vCPUs.
function hv.vm_destroy()
  local vm, message, code = need_vm()
  if not vm then return nil, message, code end
  if next(state.vcpus) then return fail(hv.BUSY, "the VM has vCPUs; destroy them first") end
  vm:close()
  state.vm, state.bound = nil, {}
  return true
end

--- The VM as the Lua API has it, nil without one.
function hv.vm()
  return state.vm
end

--- The vCPU of that number as the Lua API has it, or nil.
function hv.vcpu(id)
  return state.vcpus[id] and state.vcpus[id].cpu
end

--- Makes all time-stamp counters show the value (u64).
function hv.vm_sync_tsc(tsc)
  local vm, message, code = need_vm()
  if not vm then return nil, message, code end
  return result(raw.sync_tsc(vm, shared.u64("hv.vm_sync_tsc: tsc", tsc)))
end

-- ---- Spaces ----

--- Makes a further space; its number.
function hv.vm_space_create()
  local vm, message, code = need_vm()
  if not vm then return nil, message, code end
  local space
  space, message, code = vm:space()
  if not space then return result(nil, message, code) end
  return space.id
end

--- Destroys it; HV_BUSY while a vCPU is bound to it, or was when it was destroyed.
function hv.vm_space_destroy(asid)
  local space, message, code = space_of(asid)
  if not space then return nil, message, code end
  if asid == hv.VM_SPACE_DEFAULT then return fail(hv.BAD_ARGUMENT, "the default space stays") end
  if (state.bound[asid] or 0) > 0 then
    return fail(hv.BUSY, "vCPUs are bound to space %d, or were when they were destroyed", asid)
  end
  space:close()
  return true
end

-- ---- Memory ----

local STRICT = 8 -- luna_map_flag
local memory_flags = hv.MEMORY_READ + hv.MEMORY_WRITE + hv.MEMORY_EXEC + hv.MEMORY_UEXEC

-- luna_access bits, with the VM's strictness; nil, message, code.
local function rights_of(what, flags)
  flags = check.whole(what .. ": flags", flags, 0, nil, 2)
  if not within(flags, memory_flags) then
    return fail(has(flags, hv.MEMORY_MAXPROT) and hv.UNSUPPORTED or hv.BAD_ARGUMENT,
      "%s: flags 0x%x: READ, WRITE, EXEC and UEXEC are known", what, flags)
  end
  if has(flags, hv.MEMORY_UEXEC) and not has(flags, hv.MEMORY_EXEC) then
    return fail(hv.UNSUPPORTED, "KVM does not tell user execution from EXEC: ask for both")
  end
  return flags % hv.MEMORY_UEXEC + (has(state.options, hv.VM_STRICT_EXEC) and STRICT or 0)
end

-- The VM and the rights, or nil, message, code.
local function begin_rights(what, asid, flags)
  local space, message, code = space_of(asid)
  if not space then return nil, message, code end
  local rights
  rights, message, code = rights_of(what, flags)
  if not rights then return nil, message, code end
  return space.vm, rights
end

--- Maps `size` bytes of a luna.buffer, from `offset` on (0 where nil), at gpa of a space.
function hv.vm_map_space(asid, buffer, gpa, size, flags, offset)
  check.object("hv.vm_map_space: buffer", buffer, buffers.class)
  gpa = check.whole("hv.vm_map_space: gpa", gpa, 0)
  size = check.whole("hv.vm_map_space: size", size, 0)
  offset = check.whole("hv.vm_map_space: offset", offset or 0, 0)
  local vm, rights, code = begin_rights("hv.vm_map_space", asid, flags)
  if not vm then return nil, rights, code end
  return result(raw.map(vm, asid, buffer, offset, gpa, size, rights))
end

-- Unmaps what there is of the range, piece by piece.
local function unmap_pieces(vm, asid, gpa, last)
  while gpa < last do
    local first, length = raw.next_region(vm, asid, gpa)
    if not first or first >= last then return true end
    if first > gpa then gpa = first end
    local behind = math.min(first + length, last)
    local done, message, code = raw.unmap(vm, asid, gpa, behind - gpa)
    if not done then return nil, message, code end
    gpa = behind
  end
  return true
end

--- Takes the pages away; those that are not mapped are passed over.
function hv.vm_unmap_space(asid, gpa, size)
  gpa = check.whole("hv.vm_unmap_space: gpa", gpa, 0)
  size = check.whole("hv.vm_unmap_space: size", size, 0)
  local space, message, code = space_of(asid)
  if not space then return nil, message, code end
  local done
  done, message, code = raw.unmap(space.vm, asid, gpa, size)
  if code == "not_found" then
    done, message, code = unmap_pieces(space.vm, asid, gpa, gpa + size)
  end
  return result(done, message, code)
end

--- Gives the pages other rights.
function hv.vm_protect_space(asid, gpa, size, flags)
  gpa = check.whole("hv.vm_protect_space: gpa", gpa, 0)
  size = check.whole("hv.vm_protect_space: size", size, 0)
  local vm, rights, code = begin_rights("hv.vm_protect_space", asid, flags)
  if not vm then return nil, rights, code end
  return result(raw.protect(vm, asid, gpa, size, rights))
end

--- The same for the default space.
function hv.vm_map(buffer, gpa, size, flags, offset)
  return hv.vm_map_space(hv.VM_SPACE_DEFAULT, buffer, gpa, size, flags, offset)
end

function hv.vm_unmap(gpa, size)
  return hv.vm_unmap_space(hv.VM_SPACE_DEFAULT, gpa, size)
end

function hv.vm_protect(gpa, size, flags)
  return hv.vm_protect_space(hv.VM_SPACE_DEFAULT, gpa, size, flags)
end

--- A luna.buffer of that size.
function hv.vm_allocate(size)
  size = check.whole("hv.vm_allocate: size", size, 0)
  if size == 0 or size % 4096 ~= 0 then
    return fail(hv.BAD_ARGUMENT, "%d bytes are no whole pages", size)
  end
  local buffer, message, code = buffers.new(size)
  return result(buffer, message, code)
end

--- Closes it.
function hv.vm_deallocate(buffer)
  check.object("hv.vm_deallocate: buffer", buffer, buffers.class)
  buffer:close()
  return true
end

for _, part in ipairs { "vcpu", "msr", "vmcs", "intr" } do
  require("lunavisor.hv_" .. part)(hv, shared)
end

-- Those that only the C library has.
local in_c = {
  "vmx_vcpu_read_shadow_vmcs", "vmx_vcpu_write_shadow_vmcs", "vmx_vcpu_set_shadow_access",
  "vmx_vcpu_get_cap_write_vmcs", "vmx_get_msr_info", "vmx_vcpu_set_apic_address",
  "vmx_vcpu_set_apic_address_space", "vm_ioapic_assert_irq", "vm_ioapic_deassert_irq",
  "vm_ioapic_pulse_irq", "vm_ioapic_read", "vm_ioapic_write", "vm_ioapic_get_state",
  "vm_ioapic_put_state", "vm_atpic_assert_irq", "vm_atpic_deassert_irq", "vm_atpic_port_read",
  "vm_atpic_port_write", "vm_atpic_get_state", "vm_atpic_put_state", "vcpu_inject_extint",
  "vcpu_apic_lsc_enter_r32", "vcpu_apic_lsc_enter_imm32", "vcpu_apic_lsc_invalidate",
  "vcpu_exit_init_ap", "vcpu_exit_startup_ap", "vcpu_exit_apic_access_read",
  "vcpu_exit_inject_excp", "sme_config_get_max_svl_bytes",
}
for _, name in ipairs(in_c) do
  hv[name] = function()
    return fail(hv.UNSUPPORTED, "hv.%s: not from Lua; the Lua API has its own ways (vm:irq, "
      .. "vm:route, vm:chip, cpu.apic), and C has hv_%s", name, name)
  end
end

return hv
