---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations: lunavisor.hv, the Hypervisor framework's calls. Its numbers are fields too,
-- by the framework's names without HV_ (hv_constants.lua).
error "annotations are not to be required"

---An access that KVM has decoded.
---@class luna.hv_access
---@field address integer a port or a gpa
---@field size integer
---@field access integer hv.MEMORY_READ, hv.MEMORY_WRITE or hv.MEMORY_EXEC
---@field value? integer|luna.u64 of a write
---@field port boolean

---@class luna.hv
---@field DEADLINE_FOREVER luna.u64
---@field [string] integer
local hv = {}

--- HV_CAP_VCPUMAX or HV_CAP_ADDRSPACEMAX: the number.
---@param capability integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.capability(capability) end

--- Makes the VM. With HV_VM_ACCEL_APIC the vCPUs have local APICs in KVM; an I/O APIC and PICs are
--- the script's.
---@param options? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_create(options) end

--- Destroys it; HV_BUSY while it has vCPUs.
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_destroy() end

--- The VM as the Lua API has it, nil without one.
---@return luna.vm?
function hv.vm() end

--- The vCPU of that number as the Lua API has it, or nil.
---@param id integer
---@return luna.vcpu?
function hv.vcpu(id) end

--- Makes all time-stamp counters show the value (u64).
---@param tsc integer|luna.u64
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_sync_tsc(tsc) end

--- Makes a further space; its number.
---@return integer? value
---@return string? message
---@return integer? code
function hv.vm_space_create() end

--- Destroys it; HV_BUSY while a vCPU is bound to it, or was when it was destroyed.
---@param asid integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_space_destroy(asid) end

--- Maps `size` bytes of a luna.buffer, from `offset` on (0 where nil), at gpa of a space.
---@param asid integer
---@param buffer luna.buffer
---@param gpa integer
---@param size integer
---@param flags integer
---@param offset? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_map_space(asid, buffer, gpa, size, flags, offset) end

--- Takes the pages away; those that are not mapped are passed over.
---@param asid integer
---@param gpa integer
---@param size integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_unmap_space(asid, gpa, size) end

--- Gives the pages other rights.
---@param asid integer
---@param gpa integer
---@param size integer
---@param flags integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_protect_space(asid, gpa, size, flags) end

--- The same for the default space.
---@param buffer luna.buffer
---@param gpa integer
---@param size integer
---@param flags integer
---@param offset? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_map(buffer, gpa, size, flags, offset) end

---@param gpa integer
---@param size integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_unmap(gpa, size) end

---@param gpa integer
---@param size integer
---@param flags integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_protect(gpa, size, flags) end

--- A luna.buffer of that size.
---@param size integer
---@return luna.buffer? value
---@return string? message
---@return integer? code
function hv.vm_allocate(size) end

--- Closes it.
---@param buffer luna.buffer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_deallocate(buffer) end

--- Makes a vCPU in the default space, in the state after RESET; its number.
---@param options? integer
---@return integer? value
---@return string? message
---@return integer? code
function hv.vcpu_create(options) end

--- Destroys it. A space that it was bound to stays busy.
---@param id integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_destroy(id) end

--- Binds it to a space.
---@param id integer
---@param asid integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_set_space(id, asid) end

--- A register (HV_X86_*): u64. TPR is CR8 * 16.
---@param id integer
---@param reg integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.vcpu_read_register(id, reg) end

---@param id integer
---@param reg integer
---@param value integer|luna.u64
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_write_register(id, reg, value) end

--- The x87, SSE and AVX state as a string, in the form of XSAVE.
---@param id integer
---@return string? value
---@return string? message
---@return integer? code
function hv.vcpu_read_fpstate(id) end

---@param id integer
---@param bytes string
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_write_fpstate(id, bytes) end

--- Runs the vCPU until an exit; the VMCS has it.
---@param id integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_run(id) end

--- The same up to a moment in nanoseconds of the monotonic clock (luna.clock() * 1e9), or
--- hv.DEADLINE_FOREVER.
---@param id integer
---@param deadline integer|luna.u64
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_run_until(id, deadline) end

--- Interrupts each of a list of vCPUs; none if one does not exist.
---@param list integer[]
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_interrupt(list) end

--- What the last exit wants, a port or an EPT violation: { address, size, access, value, port }.
---@param id integer
---@return luna.hv_access? value
---@return string? message
---@return integer? code
function hv.ext_vcpu_access(id) end

--- Finishes it: a read gets the value.
---@param id integer
---@param value? (integer|luna.u64)
---@return true? value
---@return string? message
---@return integer? code
function hv.ext_vcpu_complete(id, value) end

--- Nanoseconds that it has executed, and those that it was halted inside KVM.
---@param id integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.vcpu_get_exec_time(id) end

---@param id integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.vcpu_get_idle_time(id) end

--- Makes the guest's time-stamp counter the host's plus the offset.
---@param id integer
---@param offset? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_set_tsc_relative(id, offset) end

--- The host's counter, as KVM lets it be read: by a vCPU whose offset is known.
---@return true? value
---@return string? message
---@return integer? code
function hv.tsc_clock() end

---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_flush() end

--- Makes KVM forget the guest's page tables: it does so when a memory slot goes.
---@param id integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_invalidate_tlb(id) end

--- How the last entry failed, if it did before the guest's state was looked at: 0x40, or 0.
---@param id integer
---@return integer? value
---@return string? message
---@return integer? code
function hv.vcpu_vmx_status(id) end

--- Lets the guest access the MSR, or no longer.
---@param id integer
---@param msr integer
---@param on boolean
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_enable_native_msr(id, msr, on) end

--- Announces it, for hv.vcpu_set_msr_access, or forgets it.
---@param id integer
---@param msr integer
---@param on boolean
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_enable_managed_msr(id, msr, on) end

--- What the guest may do with an MSR that was announced.
---@param id integer
---@param msr integer
---@param flags integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_set_msr_access(id, msr, flags) end

--- Its value: u64.
---@param id integer
---@param msr integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.vcpu_read_msr(id, msr) end

---@param id integer
---@param msr integer
---@param value integer|luna.u64
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_write_msr(id, msr, value) end

--- A field: u64.
---@param id integer
---@param field integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.vmx_vcpu_read_vmcs(id, field) end

---@param id integer
---@param field integer
---@param value integer|luna.u64
---@return true? value
---@return string? message
---@return integer? code
function hv.vmx_vcpu_write_vmcs(id, field, value) end

--- A capability (HV_VMX_CAP_*): u64.
---@param field integer
---@return luna.u64? value
---@return string? message
---@return integer? code
function hv.vmx_read_capability(field) end

--- Sends a fixed interrupt to the local APIC of a vCPU.
---@param id integer
---@param vector integer
---@param trigger? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_lapic_set_intr(id, vector, trigger) end

--- Sends a message-signalled interrupt.
---@param address integer
---@param data integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_lapic_msi(address, data) end

--- Sends what a redirection entry (u64) of an I/O APIC says.
---@param entry integer|luna.u64
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_send_ioapic_intr(entry) end

--- The frequency of the local APICs' timers, before the first vCPU.
---@param hertz integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_set_apic_bus_freq(hertz) end

--- A register of its page.
---@param id integer
---@param offset? integer
---@return integer? value
---@return string? message
---@return integer? code
function hv.vcpu_apic_read(id, offset) end

--- Writes one: true, and that there is nothing left to do. HV_UNSUPPORTED for EOI and those that
--- send something: see hv.vm_lapic_msi.
---@param id integer
---@param offset? integer
---@param value integer|luna.u64
---@return true? value
---@return boolean|string? no_side_effect_or_message
---@return integer? code
function hv.vcpu_apic_write(id, offset, value) end

--- Its page, as a string of 1024 bytes.
---@param id integer
---@return string? value
---@return string? message
---@return integer? code
function hv.vcpu_apic_get_state(id) end

---@param id integer
---@param registers string
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_apic_put_state(id, registers) end

--- Fires the timer's entry of the local vector table, unless it is masked.
---@param id integer
---@param flavor integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_apic_trigger_lvt(id, flavor) end

--- Ends of level interrupts exit anyway (HV_APIC_CTRL_IOAPIC_EOI); KVM has no other control.
---@param id integer
---@param controls integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vcpu_apic_ctrl(id, controls) end

--- What there is to know of the last exit beside the VMCS: HV_VM_EXITINFO_*; 0 before the first.
---@param id integer
---@return integer? value
---@return string? message
---@return integer? code
function hv.vcpu_exit_info(id) end

--- The vector of the level interrupt that has ended.
---@param id integer
---@return integer? value
---@return string? message
---@return integer? code
function hv.vcpu_exit_ioapic_eoi(id) end

--- Lets writes to a port signal the eventfd `fd` instead of exiting.
---@param port integer
---@param size integer
---@param value integer|luna.u64
---@param fd integer
---@param flags? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_add_pio_notifier(port, size, value, fd, flags) end

--- Takes it away; the arguments are those that it was added with.
---@param port integer
---@param size integer
---@param value integer|luna.u64
---@param fd integer
---@param flags? integer
---@return true? value
---@return string? message
---@return integer? code
function hv.vm_remove_pio_notifier(port, size, value, fd, flags) end
return hv
