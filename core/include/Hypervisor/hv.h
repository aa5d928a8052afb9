/* SPDX-License-Identifier: MIT
 * The Hypervisor framework's calls for VMs, address spaces, memory and vCPUs, over Linux/KVM.
 *
 * Every function returns HV_SUCCESS or an error, and a call that fails changes nothing. Common to
 * all that do not say otherwise:
 *   HV_NO_DEVICE     there is no VM in this process (also in a child after fork)
 *   HV_BAD_ARGUMENT  a null pointer, an unknown flag, a vCPU or space that does not exist
 *   HV_DENIED        a call on a vCPU by a thread that does not own it
 *   HV_NO_RESOURCES  the host has no memory, descriptor or memory slot left
 *   HV_ERROR         anything else; hv_ext_error_message() of hv_linux.h says what
 *
 * Threads. A vCPU belongs to the thread that made it, and a thread owns at most one; it is
 * destroyed when the thread ends. "Owner" below means that only that thread may call. The other
 * functions may be called by any thread at any time. */
#ifndef HYPERVISOR_HV_H
#define HYPERVISOR_HV_H

#include <Hypervisor/hv_arch_x86.h>
#include <Hypervisor/hv_error.h>
#include <Hypervisor/hv_intr.h>
#include <Hypervisor/hv_types.h>

HV_BEGIN

/* ---- The VM ---- */

/* A limit of this host: HV_CAP_VCPUMAX or HV_CAP_ADDRSPACEMAX (each space takes a descriptor, and
 * one more for each vCPU that was in it). Needs no VM. HV_UNSUPPORTED without KVM. */
HV_API hv_return_t hv_capability(hv_capability_t capability, uint64_t *value);

/* Makes the VM of this process, with space HV_VM_SPACE_DEFAULT, no memory and no vCPU. HV_BUSY if
 * there is one already; HV_UNSUPPORTED without KVM; HV_DENIED if this user may not use it. */
HV_API hv_return_t hv_vm_create(hv_vm_options_t flags);
/* Destroys it, with its spaces, maps and notifiers. HV_BUSY while it has a vCPU. */
HV_API hv_return_t hv_vm_destroy(void);

/* Makes the time-stamp counters of all vCPUs show `tsc` now. A KVM that keeps no offset of them
 * (before Linux 5.16) has them some microseconds apart, and none may run then. HV_UNSUPPORTED where
 * guests read the host's counter as it is. */
HV_API hv_return_t hv_vm_sync_tsc(uint64_t tsc);

/* Makes writes of `size` bytes (1, 2, 4) of `value` to I/O port `addr` signal an eventfd instead of
 * exiting. `port` is its descriptor, which stays the caller's: on Linux, it stands for the Mach
 * port. It becomes readable and counts the writes; there is no message. With HV_ION_ANY_VALUE
 * `value` has no meaning, with HV_ION_ANY_SIZE `size` has none. A write signals all notifiers that
 * it is for, the newest first. For one whose counter is at its limit it is lost; with
 * HV_ION_EXIT_FULL it exits then, and older ones hear nothing of it. KVM signals by itself where a
 * write can be for one notifier, without HV_ION_EXIT_FULL and HV_ION_ANY_SIZE alone; a port with
 * others costs a way out of KVM for each write, and writes of several bytes that run into another
 * such port are taken apart. HV_BUSY for what is there already, HV_BAD_ARGUMENT for a descriptor
 * that is no eventfd, and for a value that no write of the size has. */
HV_API hv_return_t hv_vm_add_pio_notifier(uint16_t addr, size_t size, uint32_t value,
                                          mach_port_t port, hv_ion_flags_t flags);
/* Takes away what was added with the same arguments. HV_BAD_ARGUMENT if there is none. */
HV_API hv_return_t hv_vm_remove_pio_notifier(uint16_t addr, size_t size, uint32_t value,
                                             mach_port_t port, hv_ion_flags_t flags);

/* ---- Guest-physical address spaces ---- */

/* Makes a further space, empty; `*asid` is the lowest number that is free. */
HV_API hv_return_t hv_vm_space_create(hv_vm_space_t *asid);
/* Destroys it and its map. HV_BUSY while a vCPU is bound to it. A vCPU that was destroyed while
 * bound leaves the space busy as long as the VM lives, as macOS 10.15 does: set the vCPU back to
 * the default space first. HV_BAD_ARGUMENT for the default space. */
HV_API hv_return_t hv_vm_space_destroy(hv_vm_space_t asid);

/* ---- Memory ---- */

/* Lets the guest see [uva, uva + size) of this process at gpa of a space; gpa is a multiple of 4096
 * and size is not 0 (HV_BAD_ARGUMENT). uva is rounded down to a multiple, size up, here and below:
 * the guest sees whole pages. The memory stays the caller's, who keeps it until it is unmapped.
 * HV_BUSY if something is mapped there already; HV_UNSUPPORTED for EXEC without READ. With flags 0
 * every access is an EPT violation. */
HV_API hv_return_t hv_vm_map_space(hv_vm_space_t asid, hv_uvaddr_t uva, hv_gpaddr_t gpa,
                                   size_t size, hv_memory_flags_t flags);
/* Takes the pages of [gpa, gpa + size) away, of any mapping or part of one; pages that are not
 * mapped are passed over. */
HV_API hv_return_t hv_vm_unmap_space(hv_vm_space_t asid, hv_gpaddr_t gpa, size_t size);
/* Gives the pages other rights. HV_BAD_ARGUMENT if not all are mapped; HV_DENIED for a right that
 * HV_MEMORY_MAXPROT withholds. */
HV_API hv_return_t hv_vm_protect_space(hv_vm_space_t asid, hv_gpaddr_t gpa, size_t size,
                                       hv_memory_flags_t flags);
/* The same for HV_VM_SPACE_DEFAULT. */
HV_API hv_return_t hv_vm_map(hv_uvaddr_t uva, hv_gpaddr_t gpa, size_t size,
                             hv_memory_flags_t flags);
HV_API hv_return_t hv_vm_unmap(hv_gpaddr_t gpa, size_t size);
HV_API hv_return_t hv_vm_protect(hv_gpaddr_t gpa, size_t size, hv_memory_flags_t flags);

/* ---- vCPUs ---- */

/* Makes a vCPU in the default space, owned by the calling thread, in the state after RESET; `*vcpu`
 * is the lowest number that is free. HV_BUSY if the thread owns one already. */
HV_API hv_return_t hv_vcpu_create(hv_vcpuid_t *vcpu, hv_vcpu_options_t flags);
/* Destroys it. Owner. */
HV_API hv_return_t hv_vcpu_destroy(hv_vcpuid_t vcpu);
/* Binds the vCPU to a space: the same registers, another map. Owner. An instruction that exited for
 * memory and is run again is done in the new space. */
HV_API hv_return_t hv_vcpu_set_space(hv_vcpuid_t vcpu, hv_vm_space_t asid);

/* A register. Owner. HV_UNSUPPORTED for CR1. A value that the register cannot hold is
 * HV_BAD_ARGUMENT; one that the processor refuses shows when the vCPU runs, as
 * VMX_REASON_VMENTRY_GUEST. */
HV_API hv_return_t hv_vcpu_read_register(hv_vcpuid_t vcpu, hv_x86_reg_t reg, uint64_t *value);
HV_API hv_return_t hv_vcpu_write_register(hv_vcpuid_t vcpu, hv_x86_reg_t reg, uint64_t value);

/* The x87, SSE and AVX state, in the standard form of XSAVE on this host (SDM Vol. 1, 13.4): 512
 * bytes for x87 and SSE, 576 or more for the header and as much as fits. Of a larger buffer,
 * reading zeroes and writing ignores the rest. Owner. */
HV_API hv_return_t hv_vcpu_read_fpstate(hv_vcpuid_t vcpu, void *buffer, size_t size);
HV_API hv_return_t hv_vcpu_write_fpstate(hv_vcpuid_t vcpu, void *buffer, size_t size);

/* MSRs. The guest's RDMSR and WRMSR exit (VMX_REASON_RDMSR, VMX_REASON_WRMSR), except of those that
 * it may access: KVM has all MSRs that it knows, so a managed MSR is one that can be allowed, and a
 * native one is managed and allowed. Those of the x2APIC never exit. Owner.
 *
 * enable_native: allows both, or takes that back. enable_managed: announces the MSR, or forgets it
 * and what was allowed. set_msr_access: what the guest may do (HV_MSR_*) with an MSR that was
 * announced, HV_BAD_ARGUMENT for any other. HV_UNSUPPORTED for an MSR that KVM does not have. */
HV_API hv_return_t hv_vcpu_enable_native_msr(hv_vcpuid_t vcpu, uint32_t msr, bool enable);
HV_API hv_return_t hv_vcpu_enable_managed_msr(hv_vcpuid_t vcpu, uint32_t msr, bool enable);
HV_API hv_return_t hv_vcpu_set_msr_access(hv_vcpuid_t vcpu, uint32_t msr, hv_msr_flags_t flags);
/* The value of an MSR that KVM has, announced or not (HV_BAD_ARGUMENT for another, and for a value
 * that KVM refuses). Owner. */
HV_API hv_return_t hv_vcpu_read_msr(hv_vcpuid_t vcpu, uint32_t msr, uint64_t *value);
HV_API hv_return_t hv_vcpu_write_msr(hv_vcpuid_t vcpu, uint32_t msr, uint64_t value);

/* Obsolete in macOS 11: has no effect. HV_UNSUPPORTED, always. */
HV_API hv_return_t hv_vcpu_flush(hv_vcpuid_t vcpu);
/* Drops what the vCPU remembers of the guest's page tables. Owner. */
HV_API hv_return_t hv_vcpu_invalidate_tlb(hv_vcpuid_t vcpu);

/* Runs the vCPU until something has to be looked at; the exit is in the VMCS (hv_vmx.h). Owner.
 * HV_FAULT: host memory behind a mapping is gone. HV_ERROR: KVM cannot go on, for instance with an
 * instruction that it cannot emulate. Exits for causes outside the guest are VMX_REASON_IRQ: a
 * signal to this thread and, of hv_vcpu_run alone, the host's timer interrupts, of which there is
 * one about every millisecond that the guest runs (none with HV_VM_ACCEL_APIC). HV_NO_RESOURCES:
 * there is no thread for those. */
HV_API hv_return_t hv_vcpu_run(hv_vcpuid_t vcpu);
/* The same, without interrupts of the host, up to a moment in nanoseconds of CLOCK_MONOTONIC
 * (Apple: Mach absolute time): then VMX_REASON_VMX_TIMER_EXPIRED, at once if it has passed, before
 * the guest does anything. Owner. */
HV_API hv_return_t hv_vcpu_run_until(hv_vcpuid_t vcpu, uint64_t deadline);
HV_WIDE enum { HV_DEADLINE_FOREVER = 0xffffffffffffffffull };
/* Makes the run that is under way on each of the vCPUs, or else its next one, end with
 * VMX_REASON_IRQ: never lost, and two before it are one. HV_BAD_ARGUMENT if one does not exist:
 * then none is interrupted. Any thread, and the handler of a signal. */
HV_API hv_return_t hv_vcpu_interrupt(hv_vcpuid_t *vcpus, unsigned int vcpu_count);

/* Nanoseconds that the vCPU has executed; and those that it was halted inside KVM, which it is with
 * HV_VM_ACCEL_APIC only. Up to its last exit. Owner. */
HV_API hv_return_t hv_vcpu_get_exec_time(hv_vcpuid_t vcpu, uint64_t *time);
HV_API hv_return_t hv_vcpu_get_idle_time(hv_vcpuid_t vcpu, uint64_t *time);

/* This processor's time-stamp counter. */
HV_API uint64_t hv_tsc_clock(void);
/* Makes the guest's counter hv_tsc_clock() + `offset`. Owner. HV_UNSUPPORTED unless the vCPU was
 * made with HV_VCPU_TSC_RELATIVE, and where guests read the host's counter as it is. Where KVM
 * keeps no offset, it is off by some microseconds. */
HV_API hv_return_t hv_vcpu_set_tsc_relative(hv_vcpuid_t vcpu, int64_t offset);

/* How the last VM entry failed, if it did before the guest's state was looked at: RFLAGS after
 * VMLAUNCH, CF or ZF; 0 if it did not. With ZF, VMCS_RO_INSTR_ERROR has the reason. Owner. */
HV_API hv_return_t hv_vcpu_vmx_status(hv_vcpuid_t vcpu, uint32_t *status);

/* For ARM processors: HV_UNSUPPORTED. Needs no VM. */
HV_API hv_return_t hv_sme_config_get_max_svl_bytes(size_t *value);

HV_END

#endif
