/* SPDX-License-Identifier: MIT
 * Following the controls of a virtual-machine monitor (luna_controls; SDM volume 3, chapters 26 and
 * 28). A vCPU without them pays a test of soft_cpu.controlled where an instruction could exit. */
#ifndef SOFT_VMX_H
#define SOFT_VMX_H

#include "soft/cpu.h"

/* Bits of luna_controls.primary. */
enum {
  SOFT_EXIT_HLT = 1 << 7,
  SOFT_EXIT_INVLPG = 1 << 9,
  SOFT_EXIT_MWAIT = 1 << 10,
  SOFT_EXIT_RDPMC = 1 << 11,
  SOFT_EXIT_RDTSC = 1 << 12,
  SOFT_EXIT_CR3_LOAD = 1 << 15,
  SOFT_EXIT_CR3_STORE = 1 << 16,
  SOFT_EXIT_CR8_LOAD = 1 << 19,
  SOFT_EXIT_CR8_STORE = 1 << 20,
  SOFT_TPR_SHADOW = 1 << 21,
  SOFT_EXIT_NMI_WINDOW = 1 << 22,
  SOFT_EXIT_DR = 1 << 23,
  SOFT_EXIT_PORT = 1 << 24,
  SOFT_EXIT_STEP = 1 << 27, /* the monitor trap flag */
  SOFT_EXIT_MONITOR = 1 << 29,
  SOFT_EXIT_PAUSE = 1 << 30
};

/* And of luna_controls.secondary. */
enum {
  SOFT_EXIT_TABLES = 1 << 2,
  SOFT_HAS_RDTSCP = 1 << 3,
  SOFT_EXIT_WBINVD = 1 << 6,
  SOFT_EXIT_RDRAND = 1 << 11,
  SOFT_HAS_INVPCID = 1 << 12,
  SOFT_EXIT_RDSEED = 1 << 16,
  SOFT_HAS_XSAVES = 1 << 20
};

/* Basic exit reasons (SDM volume 3, appendix C). */
enum {
  SOFT_REASON_EXCEPTION = 0,
  SOFT_REASON_NMI_WINDOW = 8,
  SOFT_REASON_TASK = 9,
  SOFT_REASON_CPUID = 10,
  SOFT_REASON_HLT = 12,
  SOFT_REASON_INVD = 13,
  SOFT_REASON_INVLPG = 14,
  SOFT_REASON_RDPMC = 15,
  SOFT_REASON_RDTSC = 16,
  SOFT_REASON_VMCALL = 18,
  SOFT_REASON_CR = 28,
  SOFT_REASON_DR = 29,
  SOFT_REASON_PORT = 30,
  SOFT_REASON_MWAIT = 36,
  SOFT_REASON_STEP = 37,
  SOFT_REASON_MONITOR = 39,
  SOFT_REASON_PAUSE = 40,
  SOFT_REASON_TPR = 43,
  SOFT_REASON_GDT = 46,
  SOFT_REASON_LDT = 47,
  SOFT_REASON_ACCESS = 48, /* an EPT violation */
  SOFT_REASON_RDTSCP = 51,
  SOFT_REASON_WBINVD = 54,
  SOFT_REASON_XSETBV = 55,
  SOFT_REASON_RDRAND = 57,
  SOFT_REASON_INVPCID = 58,
  SOFT_REASON_RDSEED = 61
};

/* What is due before the next instruction: soft_cpu.due. */
enum {
  SOFT_DUE_EVENT = 1, /* the one that user space wants delivered: soft_cpu.entry */
  SOFT_DUE_TPR = 2,   /* the task priority may be below its threshold */
  SOFT_DUE_STEP = 4,  /* the monitor trap flag's exit */
  SOFT_DUE_EXIT = 8   /* one that is on the run page: soft_vmx_return */
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
/* What KVM_EXIT_MMIO does not tell of an access to memory that is not there. */
SOFT_COLD void soft_vmx_tell_access(soft_cpu *cpu, uint64_t linear);
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
