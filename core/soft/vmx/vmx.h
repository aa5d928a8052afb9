/* SPDX-License-Identifier: MIT
 * Following the controls of a virtual-machine monitor (luna_controls; SDM volume 3, chapters 26 and
 * 28). A vCPU without them pays a test of soft_cpu.controlled where an instruction could exit. */
#ifndef SOFT_VMX_H
#define SOFT_VMX_H

#include "soft/cpu.h"

#include <lunavisor/vmx.h>

/* What is due before the next instruction: soft_cpu.due. */
enum {
  SOFT_DUE_EVENT = 1, /* the one that user space wants delivered: soft_cpu.entry */
  SOFT_DUE_TPR = 2,   /* the task priority may be below its threshold */
  SOFT_DUE_STEP = 4,  /* the monitor trap flag's exit */
  SOFT_DUE_EXIT = 8,  /* one that is on the run page: soft_vmx_return */
  SOFT_DUE_START = 16 /* that of an INIT or a SIPI: soft_cpu.started */
};

/* ---- exit.c ---- */

/* An exit that the run page is to have; its details may be set before the handler is left. */
luna_control_exit *soft_vmx_begin(soft_cpu *cpu, uint32_t reason, uint64_t qualification);
__attribute__((noreturn)) void soft_vmx_leave(soft_cpu *cpu);
/* The same for a handler that returns what this gives: a jump out of all of them makes the
 * processor foresee none of the returns that follow. */
const soft_insn *soft_vmx_return(soft_cpu *cpu);
/* Both, at the instruction that runs. */
__attribute__((noreturn)) SOFT_COLD void soft_vmx_exit(soft_cpu *cpu, const soft_insn *insn,
                                                       uint32_t reason, uint64_t qualification);
/* Exits where the bitmap has the exception; returns where it does not. */
SOFT_COLD void soft_vmx_exception(soft_cpu *cpu, const soft_event *event);
/* The same for a page fault, by mask and match. */
SOFT_COLD void soft_vmx_page_fault(soft_cpu *cpu, uint64_t linear, uint32_t error);
/* For a debug exception with these bits of DR6, which it has not set yet. */
SOFT_COLD void soft_vmx_debug(soft_cpu *cpu, uint64_t dr6);
/* What KVM_EXIT_MMIO does not tell of an access to memory that is not there, or, on a walk, of one
 * to an entry of a page table. */
SOFT_COLD void soft_vmx_tell_access(soft_cpu *cpu, uint64_t linear, bool walks);
/* True for an exit between two instructions, of what is due. */
SOFT_COLD bool soft_vmx_between(soft_cpu *cpu);

/* The event that user space wants delivered; false for none. */
bool soft_vmx_take(soft_cpu *cpu);

/* kernel/control.c */
void soft_controls_set(soft_cpu *cpu, const luna_controls *controls);
int soft_deliver_next(soft_cpu *cpu, uint32_t info, uint32_t error, uint32_t length);

/* ---- The tests ---- */

SOFT_INLINE bool soft_asks(const soft_cpu *cpu, uint32_t primary) {
  return soft_unlikely(cpu->controlled) && cpu->controls.primary & primary;
}
SOFT_INLINE bool soft_asks_further(const soft_cpu *cpu, uint32_t secondary) {
  return soft_unlikely(cpu->controlled) && cpu->controls.secondary & secondary;
}
/* An instruction that the controls take from the guest. */
SOFT_INLINE bool soft_withholds(const soft_cpu *cpu, uint32_t secondary) {
  return soft_unlikely(cpu->controlled) && !(cpu->controls.secondary & secondary);
}
SOFT_INLINE bool soft_traps(const soft_cpu *cpu, unsigned vector) {
  return soft_unlikely(cpu->controlled) && cpu->controls.exceptions >> vector & 1;
}

#endif
