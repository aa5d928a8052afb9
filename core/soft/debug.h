/* SPDX-License-Identifier: MIT
 * Breakpoints and single steps: the guest's own, and those of user space that debugs it. */
#ifndef SOFT_DEBUG_H
#define SOFT_DEBUG_H

#include "soft/cpu.h"

/* Whether user space debugs with the KVM_GUESTDBG_* bit. */
bool soft_debugged(const soft_cpu *cpu, uint32_t how);
/* Fills the run page with KVM_EXIT_DEBUG. */
void soft_debug_exit(soft_cpu *cpu, uint32_t dr6);
/* At an instruction breakpoint: true with an exit on the run page; or a #DB of the guest's. */
bool soft_code_breakpoint(soft_cpu *cpu);
/* Whether an instruction breakpoint lies within the block at RIP. */
bool soft_near_breakpoint(const soft_cpu *cpu);
/* After an instruction that ran alone: true with an exit on the run page. */
bool soft_after_step(soft_cpu *cpu);
/* Makes the trap that is due the event that is delivered next: a write's exit may come before it,
 * and user space may take the vCPU's state meanwhile. */
void soft_queue_trap(soft_cpu *cpu);

#endif
