/* SPDX-License-Identifier: MIT
 * The VMCS over KVM. There is none underneath, not even an Intel processor need be: the guest-state
 * fields are the vCPU's registers, the exit fields are made from what KVM tells, and the control
 * fields take what KVM does. Errors common to all: see hv.h.
 *
 * What the program finds after an exit, and what it does to go on:
 *
 * HLT, IO, RDMSR, WRMSR, CPUID. As on a Mac: RIP is at the instruction, registers are as before it,
 *   VMCS_RO_VMEXIT_INSTR_LEN is its length. The program does the instruction's work (writes RAX for
 *   IN) and adds the length to RIP; otherwise the instruction is executed again. INS and OUTS come
 *   with the first element, and the program does all of them. KVM tells neither the length nor the
 *   form of a port instruction: they are read from its code. Memory that INS is to write may
 *   have been written with zeroes when its exit comes.
 *
 * EPT violation of a read. As on a Mac: RIP is at the instruction. Either map memory there and run
 *   again, or do the instruction's work, write the registers and advance RIP. An instruction that
 *   also writes memory may have written zeroes there.
 *
 * EPT violation of a write. KVM tells only when the instruction is done but for the write. It is
 *   found again before KVM's RIP, by length, operand address and value, and then all is as on a
 *   Mac: RIP is at the instruction, and the program does its work and adds the length, or maps
 *   memory there and runs again. RIP may be behind a prefix that makes no other write of it, such
 *   as LOCK. Of MOVS and STOS KVM tells of each element, and has counted it: they are found the
 *   same way, and RCX, RSI and RDI are as before the element. What changes a register besides, or
 *   takes flags in (XCHG, XADD, CMPXCHG, ADC, SBB, RCL, RCR), BTS, BTR, BTC, SHLD and SHRD, pushes
 *   and POP to memory, INS, stores of x87's and system registers, those behind EVEX, and what
 *   cannot be read any more or crosses a page, is not found: RIP is behind it, the other registers
 *   it changes are changed, and VMCS_RO_VMEXIT_INSTR_LEN is 0, so that adding it to RIP is right.
 *   Flags are as after it. In any case memory there and a run do the write, and RIP written, with
 *   whatever value, drops it. To know what is written where, hv_ext_vcpu_access() of hv_linux.h
 *   gives address, size and value, for reads too: no instruction need be decoded. On the software
 *   CPU the exit comes before the instruction, whatever it is: RIP, length and registers are as on
 *   a Mac.
 *
 * EPT violation of a fetch. As on a Mac.
 *
 * VMENTRY_GUEST, with bit 31, VMX_REASON_ENTRY_FAILURE. The registers that the program has written
 *   break a rule for VM entries (SDM Vol. 3, 27.3), also where KVM would enter with them, or KVM or
 *   the processor refuses them: hv_ext_error_message() of hv_linux.h says which rule. An error code
 *   where an event to inject has none, or none where it has one, fails the same way, with ZF in
 *   hv_vcpu_vmx_status() and 7 in VMCS_RO_INSTR_ERROR; so do controls without the one that they
 *   need (NMI-window exiting: virtual NMIs; saving the preemption timer: the timer), and a TPR
 *   threshold above the task priority. The qualification is 2 for PDPTEs, else 0. An interrupt or
 *   NMI that the guest does not accept is no failure: it waits.
 *
 * IRQ_WND, VIRTUAL_NMI_WND. As on a Mac; until the window for NMIs is open the guest goes step by
 *   step.
 *
 * MTF. On the software CPU as on a Mac. KVM steps as it does for a debugger: what an exit has left
 * to finish is a step of its own, the delivery of an event one with the first instruction of the
 * handler, and a repeated string may be one. An event of type 7 and vector 0 is an exit at once.
 *
 * MOV_CR, with CR8-load exiting: of moves to CR8 that lower it, done already; RIP is shown at them.
 *
 * CR0.NE and CR4.VMXE, which a processor demands in VMX operation, can be set and are read back.
 * Where they, CR0.CD, NW or ET are masked, the guest reads the shadow as on a Mac, but never sees
 * VMXE set. Any other bit may be masked too if the shadow has what the register has: the guest's
 * own writes to masked bits do not exit, they are done, and the shadow shows them.
 *
 * Fields that set-up code writes are kept and read back: exception bitmap with page-fault mask and
 * match, PDPTEs, CR3-target values, TPR threshold, pause-loop window, timer value. What they ask
 * for and KVM does not do is refused. Since fields depend on each other and come in any order, some
 * of it is by hv_vcpu_run, with HV_UNSUPPORTED and before the guest is entered: page faults that
 * are to exit, shadows of masked bits that are not as in the register, PDPTEs other than those in
 * memory at CR3. #MC and #AC may be set in the exception bitmap, by habit, but do not exit. #BP may
 * where KVM stops at INT3 in every mode, and exits as on a Mac; VMCS_CTRL_VMENTRY_IRQ_INFO delivers
 * it. #DB may not: KVM tells of it only while a debugger has the debug registers. Breakpoints that
 * the guest sets would not be met then, for MOV to them has no exit, and steps by RFLAGS.TF over
 * instructions that KVM does itself would go to the guest all the same. VMCALL does not exit: it is
 * a hypercall, which KVM answers.
 *
 * On the software CPU (LUNA_ACCEL=soft, or where there is no KVM) all controls that
 * hv_vmx_read_capability offers are followed as by a processor: exception bitmap with mask and
 * match, CR0 and CR4 by masks and shadows, CR3 targets, CR8, debug registers, RDTSC, INVLPG, RDPMC,
 * PAUSE, descriptor tables, RDRAND, the preemption timer and so on; CPUID, INVD, XSETBV, task
 * switches and VMX's own instructions exit always. RIP is at the instruction at each of them, and
 * the exit fields have all that the SDM lists: qualification, instruction length and information,
 * interruption and IDT-vectoring information with their error codes. VMCS_CTRL_VMENTRY_IRQ_INFO
 * takes software interrupts and exceptions there, with VMCS_CTRL_VMENTRY_INSTR_LEN. VMREAD and
 * VMWRITE of fields that hv_vmx_vcpu_set_shadow_access gives to the guest do not exit. The guest
 * sees CR4.VMXE where no mask hides it, and cannot clear it, nor CR0.NE.
 *
 * VMCS_GUEST_DEBUG_EXC is always 0: debug exceptions that are pending, as at an exit of the monitor
 * trap flag behind an instruction with RFLAGS.TF, stay with the vCPU and come at the next run.
 *
 * An event to inject is in VMCS_CTRL_VMENTRY_IRQ_INFO until the guest has begun to take it: where a
 * run ends without an entry, or the guest does not accept an interrupt, it is still there.
 *
 * VMCS_RO_GUEST_LIN_ADDR, and bits 7 and 8 of an EPT violation's qualification that vouch for it,
 * are there where an operand of the instruction leads to the address, the top of the stack, or a
 * descriptor table that the processor looks into, for fetches, and while the guest has no
 * paging.
 *
 * Page tables in memory that may not be read or written: on the software CPU an EPT violation of
 * the entry, as on a Mac, with bit 7 of the qualification and without 8; a write sets accessed and
 * dirty bits. KVM makes no exit of either: the guest gets a page fault for an entry that cannot be
 * read, and the bits stay clear where the entry cannot be written. A program that logs writes by
 * protection, for a guest that looks at these bits, leaves its page tables writable there. */
#ifndef HYPERVISOR_HV_VMX_H
#define HYPERVISOR_HV_VMX_H

#include <Hypervisor/hv_arch_vmx.h>
#include <Hypervisor/hv_arch_x86.h>
#include <Hypervisor/hv_types.h>

HV_BEGIN

typedef enum {
  HV_VMX_CAP_PINBASED = 0,
  HV_VMX_CAP_PROCBASED = 1,
  HV_VMX_CAP_PROCBASED2 = 2,
  HV_VMX_CAP_ENTRY = 3,
  HV_VMX_CAP_EXIT = 4,
  HV_VMX_CAP_BASIC = 5,
  HV_VMX_CAP_TRUE_PINBASED = 6,
  HV_VMX_CAP_TRUE_PROCBASED = 7,
  HV_VMX_CAP_TRUE_ENTRY = 8,
  HV_VMX_CAP_TRUE_EXIT = 9,
  HV_VMX_CAP_MISC = 10,
  HV_VMX_CAP_CR0_FIXED0 = 11,
  HV_VMX_CAP_CR0_FIXED1 = 12,
  HV_VMX_CAP_CR4_FIXED0 = 13,
  HV_VMX_CAP_CR4_FIXED1 = 14,
  HV_VMX_CAP_VMCS_ENUM = 15,
  HV_VMX_CAP_EPT_VPID_CAP = 16,
  HV_VMX_CAP_PREEMPTION_TIMER = 32
} hv_vmx_capability_t;

/* hv_vmx_vcpu_set_shadow_access. */
typedef uint64_t hv_shadow_flags_t;
enum {
  HV_SHADOW_VMCS_NONE = 0,
  HV_SHADOW_VMCS_READ = 1 << 0,
  HV_SHADOW_VMCS_WRITE = 1 << 1
};

/* What the control fields can be, in the layout of Intel's capability MSRs (SDM Vol. 3, appendix
 * A). For the five kinds of controls and their TRUE forms, which are the same here: the low half
 * has the bits that must be 1, the high half those that may be. With HV_VM_ACCEL_APIC, HLT exiting
 * is not among the latter: KVM halts. MONITOR and MWAIT exiting may be 1, but a guest's CPUID does
 * not have them and they do not exit; CR8-store exiting may, and does not exit either. Needs no
 * VM. */
HV_API hv_return_t hv_vmx_read_capability(hv_vmx_capability_t field, uint64_t *value);

/* What the guest's MSRs have: their value for the INFO_ ones, the bits that can be set for the
 * VALID_ ones, those that have to be for the NEED_ ones. */
typedef uint64_t hv_vmx_msr_info_t;
enum {
  HV_VMX_INFO_MSR_IA32_ARCH_CAPABILITIES = 0,
  HV_VMX_INFO_MSR_IA32_PERF_CAPABILITIES = 1,
  HV_VMX_VALID_MSR_IA32_PERFEVNTSEL = 2,
  HV_VMX_VALID_MSR_IA32_FIXED_CTR_CTRL = 3,
  HV_VMX_VALID_MSR_IA32_PERF_GLOBAL_CTRL = 4,
  HV_VMX_VALID_MSR_IA32_PERF_GLOBAL_STATUS = 5,
  HV_VMX_VALID_MSR_IA32_DEBUGCTL = 6,
  HV_VMX_VALID_MSR_IA32_SPEC_CTRL = 7,
  HV_VMX_NEED_MSR_IA32_SPEC_CTRL = 8
};

/* Needs no VM. The bits that can be set are found by setting each on a vCPU of its own, which takes
 * a moment. HV_UNSUPPORTED without KVM, and for an MSR that KVM does not have. */
HV_API hv_return_t hv_vmx_get_msr_info(hv_vmx_msr_info_t field, uint64_t *value);

/* A field of the VMCS. Owner. Bits of a value above the field's width are ignored. HV_BAD_ARGUMENT
 * for a number that is no field, or that of the page tables (VMCS_CTRL_EPTP), a value that the
 * field cannot hold, and control bits outside the capability; HV_DENIED for a write to a read-only
 * field; HV_UNSUPPORTED for a field that KVM has nothing like (of the host, of pages that the
 * processor reads), or a value that it cannot follow, such as exceptions to exit for. */
HV_API hv_return_t hv_vmx_vcpu_read_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *value);
HV_API hv_return_t hv_vmx_vcpu_write_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t value);
/* What a write of the field accepts: bits of a control that must be 1 and may be 1; for other
 * fields, 0 and the bits that it can have. Owner. HV_UNSUPPORTED for fields that no write is
 * accepted to. */
HV_API hv_return_t hv_vmx_vcpu_get_cap_write_vmcs(hv_vcpuid_t vcpu, uint32_t field,
                                                  uint64_t *allowed_0, uint64_t *allowed_1);

/* A field of the shadow VMCS, for guests that are hypervisors themselves, and what the guest's
 * VMREAD and VMWRITE may do to it without an exit once CPU_BASED2_VMCS_SHADOW is among the
 * controls; any other exits. Every field of Intel's is there, those that tell of exits and
 * VMCS_CTRL_EPTP too, and may be written by guest and program: none has to do with the vCPU's own
 * VMCS. Each begins as 0 and HV_SHADOW_VMCS_NONE. An odd number is the upper half of a 64-bit
 * field, as 32-bit guests reach it, with flags of its own. In rings 1 to 3 VMREAD and VMWRITE of
 * what may be reached are #GP, and without CR4.VMXE #UD. Bits of a value above the field's width
 * are ignored. Owner. HV_UNSUPPORTED on KVM, which does all of it inside; HV_BAD_ARGUMENT for a
 * number that is no field, or flags that there are not. */
HV_API hv_return_t hv_vmx_vcpu_read_shadow_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *value);
HV_API hv_return_t hv_vmx_vcpu_write_shadow_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t value);
HV_API hv_return_t hv_vmx_vcpu_set_shadow_access(hv_vcpuid_t vcpu, uint32_t field,
                                                 hv_shadow_flags_t flags);

/* ---- Where the local APIC is: owner; not only with HV_VM_ACCEL_APIC ---- */

/* The page of the local APIC, in the default space or another; a multiple of 4096
 * (HV_BAD_ARGUMENT). With HV_VM_ACCEL_APIC, the one for the default space is where KVM has the
 * vCPU's, in every space. On any other page, and on all without HV_VM_ACCEL_APIC, no memory is to
 * be mapped, and accesses exit: VMX_REASON_APIC_ACCESS, whose qualification has the offset and the
 * kind of access (SDM Vol. 3, table 28-6). For a read with HV_VM_ACCEL_APIC there is also
 * HV_VM_EXITINFO_APIC_ACCESS_READ, with the value of the register. The instruction is done as after
 * an EPT violation. CPU_BASED2_VIRTUAL_APIC may be set, and is not needed. */
HV_API hv_return_t hv_vmx_vcpu_set_apic_address(hv_vcpuid_t vcpu, hv_gpaddr_t gpa);
HV_API hv_return_t hv_vmx_vcpu_set_apic_address_space(hv_vcpuid_t vcpu, hv_vm_space_t asid,
                                                      hv_gpaddr_t gpa);

HV_END

#endif
