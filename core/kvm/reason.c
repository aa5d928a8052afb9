/* SPDX-License-Identifier: MIT
 * Names and meanings of KVM's exit reasons (api.rst, section 5), of every architecture: the numbers
 * are one list. */
#include "kvm/kvm_control.h"

#include <stddef.h>

typedef struct reason_text {
  const char *name; /* as in linux/kvm.h, without KVM_EXIT_, in lower case */
  const char *text;
} reason_text;

/* By number. From 38 on newer than Linux 6.1. */
static const reason_text reasons[] = {
    {"unknown", "the processor left the guest for a reason that KVM does not know"},
    {"exception", "an exception that KVM does not handle"},
    {"io", "a port access"},
    {"hypercall", "a hypercall that KVM hands on"},
    {"debug", "a breakpoint or a single step"},
    {"hlt", "the guest executed HLT"},
    {"mmio", "an access to an address without memory"},
    {"irq_window_open", "the guest can take an interrupt now"},
    {"shutdown", "a triple fault"},
    {"fail_entry", "the processor refused the guest's state"},
    {"intr", "a signal"},
    {"set_tpr", "the guest lowered its task priority"},
    {"tpr_access", "the guest accessed the task priority of its LAPIC"},
    {"s390_sieic", "s390: an instruction to intercept"},
    {"s390_reset", "s390: a reset"},
    {"dcr", "PowerPC: an access to a device control register"},
    {"nmi", "a non-maskable interrupt of the host"},
    {"internal_error", "KVM could not go on"},
    {"osi", "PowerPC: a call to the MacOnLinux interface"},
    {"papr_hcall", "PowerPC: a hypercall"},
    {"s390_ucontrol", "s390: a fault in a guest that user space controls"},
    {"watchdog", "PowerPC: the guest's watchdog ran out"},
    {"s390_tsch", "s390: TEST SUBCHANNEL"},
    {"epr", "PowerPC: the guest acknowledges an external interrupt"},
    {"system_event", "the guest asks for a reset or to be switched off"},
    {"s390_stsi", "s390: STORE SYSTEM INFORMATION"},
    {"ioapic_eoi", "the end of a level interrupt"},
    {"hyperv", "a Hyper-V call or a change of its controllers"},
    {"arm_nisv", "Arm: an access that the processor did not decode"},
    {"x86_rdmsr", "RDMSR"},
    {"x86_wrmsr", "WRMSR"},
    {"dirty_ring_full", "the ring of written pages is full"},
    {"ap_reset_hold", "a processor waits to be started again"},
    {"x86_bus_lock", "an access that locked the whole memory bus"},
    {"xen", "a Xen hypercall"},
    {"riscv_sbi", "RISC-V: a call to the supervisor's environment"},
    {"riscv_csr", "RISC-V: an access to a control and status register"},
    {"notify", "the guest kept the processor too long from taking events"},
    {"loongarch_iocsr", "LoongArch: an access to an I/O control register"},
    {"memory_fault", "KVM could not use the memory behind an address"},
    {"tdx", "a call of a TDX guest"},
    {"arm_sea", "Arm: an external abort"},
};

static const reason_text *find(uint32_t reason) {
  static const reason_text control = {"control", "what a control of the vCPU asks for"};
  if (reason == LUNA_KVM_EXIT_CONTROL) {
    return &control;
  }
  return reason < sizeof reasons / sizeof *reasons ? &reasons[reason] : NULL;
}

const char *luna_reason_name(uint32_t reason) {
  const reason_text *found = find(reason);
  return found ? found->name : NULL;
}

const char *luna_reason_text(uint32_t reason) {
  const reason_text *found = find(reason);
  return found ? found->text : NULL;
}
