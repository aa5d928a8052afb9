/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: breakpoints, watchpoints and single steps. They belong to the vCPU, not to
 * the guest: its debug registers and memory do not show them, and they go along when it moves to
 * another space. */
#ifndef LUNAVISOR_DEBUG_H
#define LUNAVISOR_DEBUG_H

typedef enum luna_break_kind {
  LUNA_BREAK_EXECUTE = 0, /* before the instruction at a linear address: a debug register */
  LUNA_BREAK_WRITE = 1,   /* after a write to 1, 2, 4 or 8 bytes, aligned: a debug register */
  LUNA_BREAK_ACCESS = 2,  /* after a read or a write of them: a debug register */
  LUNA_BREAK_SOFTWARE = 3 /* before the instruction: INT3 in its place while the guest runs */
} luna_break_kind;

/* Sets a breakpoint and gives its number, from 1. The guest then leaves with LUNA_EXIT_DEBUG, whose
 * `breakpoint` says which. _LIMIT: all four debug registers are taken; _UNSUPPORTED: this host's
 * KVM does not stop there (luna_probe_value: "software_breakpoints"); _RANGE: a size or alignment
 * that the processor does not have. */
LUNA_API int luna_vcpu_break(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size,
                             uint32_t *breakpoint);
LUNA_API int luna_vcpu_unbreak(luna_vcpu *vcpu, uint32_t breakpoint);
/* Runs one instruction: LUNA_EXIT_DEBUG with breakpoint 0, or any other exit that comes before.
 * `deadline` as for luna_vcpu_run. */
LUNA_API int luna_vcpu_step(luna_vcpu *vcpu, uint64_t deadline);

#endif
