---@meta lunavisor.hv
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations: the Hypervisor framework's calls. Failures are nil, message, code.
error "annotations are not to be required"

---What ext_vcpu_access tells.
---@class luna.hv_access
---@field address integer a port, or a guest-physical address
---@field value integer|luna.u64 what is written; 0 for a read
---@field size integer bytes; 0 for a fetch
---@field access integer MEMORY_READ, MEMORY_WRITE or MEMORY_EXEC
---@field port boolean of I/O ports
---@field left integer elements that a string port instruction has left

---@class luna.hv_ioapic_state
---@field rtbl luna.u64[] 32 entries
---@field irr integer levels of the pins
---@field ioa_id integer
---@field ioregsel integer

---@class luna.hv_atpic_state
---@field ready boolean has been initialized
---@field icw_num integer initialization command word that is next, 1 to 4
---@field rd_cmd_reg integer what the command port gives: 1 the ISR, 0 the IRR
---@field aeoi boolean automatic EOI
---@field poll boolean the next read polls
---@field rotate boolean at an automatic EOI
---@field sfn boolean special fully nested mode
---@field irq_base integer the vector of line 0
---@field request integer IRR
---@field service integer ISR
---@field mask integer IMR
---@field smm boolean special mask mode
---@field last_request integer levels of the lines
---@field lowprio integer the line of lowest priority
---@field intr_raised boolean its output
---@field elc integer lines that are level-triggered

---@class luna.hv_apic_state
---@field apic_gpa integer
---@field apic_controls integer APIC_CTRL_*
---@field tsc_deadline luna.u64
---@field apic_id integer
---@field ver integer
---@field tpr integer
---@field apr integer
---@field ldr integer
---@field dfr integer
---@field svr integer
---@field isr integer[] eight words
---@field tmr integer[]
---@field irr integer[]
---@field esr integer
---@field lvt integer[] timer, thermal, performance counters, LINT0, LINT1, error, CMCI
---@field icr integer[] low, high
---@field icr_timer integer initial count
---@field dcr_timer integer divide configuration
---@field ccr_timer integer current count
---@field esr_pending integer 0
---@field boot_state integer BS_*
---@field aeoi integer[] 0

---The eventfd of vm_add_pio_notifier.
---@class luna.hv_event
---@field fd integer
---@field read fun(self: luna.hv_event): integer?, string?, string? the writes since the last call

---The calls, and Apple's constants without HV_.
---@class lunavisor.hv
---@field errors table<string, integer> the numbers of the codes
---@field [string] integer|luna.u64
local hv = {}
---@param capability integer
---@return integer?, string?, string?
function hv.capability(capability) end
---@param vcpu integer
---@return luna.hv_access?, string?, string?
function hv.ext_vcpu_access(vcpu) end
---@param vcpu integer
---@param value luna.u64|integer
---@return boolean?, string?, string?
function hv.ext_vcpu_complete(vcpu, value) end
---@return integer?, string?, string?
function hv.sme_config_get_max_svl_bytes() end
---@return luna.u64?, string?, string?
function hv.tsc_clock() end
---@param vcpu integer
---@param ctrls integer
---@return boolean?, string?, string?
function hv.vcpu_apic_ctrl(vcpu, ctrls) end
---@param vcpu integer
---@return luna.hv_apic_state?, string?, string?
function hv.vcpu_apic_get_state(vcpu) end
---@param vcpu integer
---@param rip luna.u64|integer
---@param ilen integer
---@param cs integer
---@param imm32 integer
---@return boolean?, string?, string?
function hv.vcpu_apic_lsc_enter_imm32(vcpu, rip, ilen, cs, imm32) end
---@param vcpu integer
---@param is_load boolean
---@param rip luna.u64|integer
---@param ilen integer
---@param cs integer
---@param reg integer
---@return boolean?, string?, string?
function hv.vcpu_apic_lsc_enter_r32(vcpu, is_load, rip, ilen, cs, reg) end
---@param vcpu integer
---@return boolean?, string?, string?
function hv.vcpu_apic_lsc_invalidate(vcpu) end
---@param vcpu integer
---@param state luna.hv_apic_state
---@return boolean?, string?, string?
function hv.vcpu_apic_put_state(vcpu, state) end
---@param vcpu integer
---@param offset integer
---@return integer?, string?, string?
function hv.vcpu_apic_read(vcpu, offset) end
---@param vcpu integer
---@param flavor integer
---@return boolean?, string?, string?
function hv.vcpu_apic_trigger_lvt(vcpu, flavor) end
---@param vcpu integer
---@param offset integer
---@param data integer
---@return boolean?, boolean|string|nil nothing_left, string?
function hv.vcpu_apic_write(vcpu, offset, data) end
---@param flags? integer
---@return integer?, string?, string?
function hv.vcpu_create(flags) end
---@param vcpu integer
---@return boolean?, string?, string?
function hv.vcpu_destroy(vcpu) end
---@param vcpu integer
---@param msr integer
---@param enable boolean
---@return boolean?, string?, string?
function hv.vcpu_enable_managed_msr(vcpu, msr, enable) end
---@param vcpu integer
---@param msr integer
---@param enable boolean
---@return boolean?, string?, string?
function hv.vcpu_enable_native_msr(vcpu, msr, enable) end
---@param vcpu integer
---@return integer?, string?, string?
function hv.vcpu_exit_apic_access_read(vcpu) end
---@param vcpu integer
---@return integer?, string?, string?
function hv.vcpu_exit_info(vcpu) end
---@param vcpu integer
---@param count integer
---@return boolean[]?, string?, string?
function hv.vcpu_exit_init_ap(vcpu, count) end
---@param vcpu integer
---@return integer? vector, integer|string|nil error_code, boolean|string|nil fault
function hv.vcpu_exit_inject_excp(vcpu) end
---@param vcpu integer
---@return integer?, string?, string?
function hv.vcpu_exit_ioapic_eoi(vcpu) end
---@param vcpu integer
---@param count integer
---@return boolean[]?, integer|string|nil address, string?
function hv.vcpu_exit_startup_ap(vcpu, count) end
---@param vcpu integer
---@return boolean?, string?, string?
function hv.vcpu_flush(vcpu) end
---@param vcpu integer
---@return luna.u64?, string?, string?
function hv.vcpu_get_exec_time(vcpu) end
---@param vcpu integer
---@return luna.u64?, string?, string?
function hv.vcpu_get_idle_time(vcpu) end
---@param vcpu integer
---@return boolean?, string?, string?
function hv.vcpu_inject_extint(vcpu) end
---@param vcpus integer[]
---@return boolean?, string?, string?
function hv.vcpu_interrupt(vcpus) end
---@param vcpu integer
---@return boolean?, string?, string?
function hv.vcpu_invalidate_tlb(vcpu) end
---@param vcpu integer
---@param size? integer
---@return string?, string?, string?
function hv.vcpu_read_fpstate(vcpu, size) end
---@param vcpu integer
---@param msr integer
---@return luna.u64?, string?, string?
function hv.vcpu_read_msr(vcpu, msr) end
---@param vcpu integer
---@param reg integer
---@return luna.u64?, string?, string?
function hv.vcpu_read_register(vcpu, reg) end
---@param vcpu integer
---@return boolean?, string?, string?
function hv.vcpu_run(vcpu) end
---@param vcpu integer
---@param deadline luna.u64|integer
---@return boolean?, string?, string?
function hv.vcpu_run_until(vcpu, deadline) end
---@param vcpu integer
---@param msr integer
---@param flags integer
---@return boolean?, string?, string?
function hv.vcpu_set_msr_access(vcpu, msr, flags) end
---@param vcpu integer
---@param asid integer
---@return boolean?, string?, string?
function hv.vcpu_set_space(vcpu, asid) end
---@param vcpu integer
---@param offset luna.u64|integer
---@return boolean?, string?, string?
function hv.vcpu_set_tsc_relative(vcpu, offset) end
---@param vcpu integer
---@return integer?, string?, string?
function hv.vcpu_vmx_status(vcpu) end
---@param vcpu integer
---@param bytes string
---@return boolean?, string?, string?
function hv.vcpu_write_fpstate(vcpu, bytes) end
---@param vcpu integer
---@param msr integer
---@param value luna.u64|integer
---@return boolean?, string?, string?
function hv.vcpu_write_msr(vcpu, msr, value) end
---@param vcpu integer
---@param reg integer
---@param value luna.u64|integer
---@return boolean?, string?, string?
function hv.vcpu_write_register(vcpu, reg, value) end
---@param addr integer
---@param size integer
---@param value integer
---@param port integer|table|nil
---@param flags integer
---@return luna.hv_event?, string?, string?
function hv.vm_add_pio_notifier(addr, size, value, port, flags) end
---@param size integer
---@param flags? integer
---@return luna.buffer?, string?, string?
function hv.vm_allocate(size, flags) end
---@param irq integer
---@return boolean?, string?, string?
function hv.vm_atpic_assert_irq(irq) end
---@param irq integer
---@return boolean?, string?, string?
function hv.vm_atpic_deassert_irq(irq) end
---@param is_primary boolean
---@return luna.hv_atpic_state?, string?, string?
function hv.vm_atpic_get_state(is_primary) end
---@param port integer the port
---@return integer?, string?, string?
function hv.vm_atpic_port_read(port) end
---@param port integer the port
---@param value integer
---@return boolean?, string?, string?
function hv.vm_atpic_port_write(port, value) end
---@param state luna.hv_atpic_state
---@param is_primary boolean
---@return boolean?, string?, string?
function hv.vm_atpic_put_state(state, is_primary) end
---@param flags? integer
---@return boolean?, string?, string?
function hv.vm_create(flags) end
---@param buffer luna.buffer
---@param size? integer
---@return boolean?, string?, string?
function hv.vm_deallocate(buffer, size) end
---@return boolean?, string?, string?
function hv.vm_destroy() end
---@param intin integer
---@return boolean?, string?, string?
function hv.vm_ioapic_assert_irq(intin) end
---@param intin integer
---@return boolean?, string?, string?
function hv.vm_ioapic_deassert_irq(intin) end
---@return luna.hv_ioapic_state?, string?, string?
function hv.vm_ioapic_get_state() end
---@param intin integer
---@return boolean?, string?, string?
function hv.vm_ioapic_pulse_irq(intin) end
---@param state luna.hv_ioapic_state
---@return boolean?, string?, string?
function hv.vm_ioapic_put_state(state) end
---@param gpa integer
---@return integer?, string?, string?
function hv.vm_ioapic_read(gpa) end
---@param gpa integer
---@param data integer
---@return boolean?, string?, string?
function hv.vm_ioapic_write(gpa, data) end
---@param addr luna.u64|integer
---@param data integer
---@return boolean?, string?, string?
function hv.vm_lapic_msi(addr, data) end
---@param vcpu integer
---@param vector integer
---@param trig integer
---@return boolean?, string?, string?
function hv.vm_lapic_set_intr(vcpu, vector, trig) end
---@param buffer luna.buffer
---@param gpa integer
---@param size integer
---@param flags integer
---@return boolean?, string?, string?
function hv.vm_map(buffer, gpa, size, flags) end
---@param asid integer
---@param buffer luna.buffer
---@param gpa integer
---@param size integer
---@param flags integer
---@return boolean?, string?, string?
function hv.vm_map_space(asid, buffer, gpa, size, flags) end
---@param gpa integer
---@param size integer
---@param flags integer
---@return boolean?, string?, string?
function hv.vm_protect(gpa, size, flags) end
---@param asid integer
---@param gpa integer
---@param size integer
---@param flags integer
---@return boolean?, string?, string?
function hv.vm_protect_space(asid, gpa, size, flags) end
---@param addr integer
---@param size integer
---@param value integer
---@param port integer|table|nil
---@param flags integer
---@return boolean?, string?, string?
function hv.vm_remove_pio_notifier(addr, size, value, port, flags) end
---@param data luna.u64|integer
---@return boolean?, string?, string?
function hv.vm_send_ioapic_intr(data) end
---@param hz integer
---@return boolean?, string?, string?
function hv.vm_set_apic_bus_freq(hz) end
---@return integer?, string?, string?
function hv.vm_space_create() end
---@param asid integer
---@return boolean?, string?, string?
function hv.vm_space_destroy(asid) end
---@param tsc luna.u64|integer
---@return boolean?, string?, string?
function hv.vm_sync_tsc(tsc) end
---@param gpa integer
---@param size integer
---@return boolean?, string?, string?
function hv.vm_unmap(gpa, size) end
---@param asid integer
---@param gpa integer
---@param size integer
---@return boolean?, string?, string?
function hv.vm_unmap_space(asid, gpa, size) end
---@param field integer
---@return luna.u64?, string?, string?
function hv.vmx_get_msr_info(field) end
---@param field integer
---@return luna.u64?, string?, string?
function hv.vmx_read_capability(field) end
---@param vcpu integer
---@param field integer
---@return luna.u64? must, luna.u64|string|nil may, string?
function hv.vmx_vcpu_get_cap_write_vmcs(vcpu, field) end
---@param vcpu integer
---@param field integer
---@return luna.u64?, string?, string?
function hv.vmx_vcpu_read_shadow_vmcs(vcpu, field) end
---@param vcpu integer
---@param field integer
---@return luna.u64?, string?, string?
function hv.vmx_vcpu_read_vmcs(vcpu, field) end
---@param vcpu integer
---@param gpa integer
---@return boolean?, string?, string?
function hv.vmx_vcpu_set_apic_address(vcpu, gpa) end
---@param vcpu integer
---@param asid integer
---@param gpa integer
---@return boolean?, string?, string?
function hv.vmx_vcpu_set_apic_address_space(vcpu, asid, gpa) end
---@param vcpu integer
---@param field integer
---@param flags integer
---@return boolean?, string?, string?
function hv.vmx_vcpu_set_shadow_access(vcpu, field, flags) end
---@param vcpu integer
---@param field integer
---@param value luna.u64|integer
---@return boolean?, string?, string?
function hv.vmx_vcpu_write_shadow_vmcs(vcpu, field, value) end
---@param vcpu integer
---@param field integer
---@param value luna.u64|integer
---@return boolean?, string?, string?
function hv.vmx_vcpu_write_vmcs(vcpu, field, value) end

return hv
