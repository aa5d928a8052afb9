/* SPDX-License-Identifier: MIT
 * Registers as the program sees them between an exit and the next entry. */
#ifndef HVF_VIEW_H
#define HVF_VIEW_H

#include "hvf/base/cpu.h"

/* Whether the last exit is for an access to memory. */
static inline bool hvf_is_fault(const hvf_vcpu *v) {
  return v->exit.kind == LUNA_EXIT_FAULT || v->exit.kind == LUNA_EXIT_HOST_FAULT;
}

/* And for a write that is done when KVM tells, with the rest of its instruction. */
static inline bool hvf_is_done(const hvf_vcpu *v) {
  return hvf_is_fault(v) && v->exit.e->access == LUNA_WRITE && !v->exit.told;
}

/* Whether the program sees other registers than KVM has. */
static inline bool hvf_has_view(const hvf_vcpu *v) {
  return v->exit.stage == HVF_STAGE_OPEN || v->exit.stage == HVF_STAGE_BEHIND;
}

/* LUNA_* registers. A write to a general register may take the instruction back first. */
hv_return_t hvf_get(hvf_vcpu *v, int reg, uint64_t *value);
hv_return_t hvf_set(hvf_vcpu *v, int reg, uint64_t value);
/* Finds out where the instruction is that exited, for all but reads and fetches of memory. */
hv_return_t hvf_view_place(hvf_vcpu *v);
/* From now on the registers are those before the instruction, and KVM knows nothing of it. */
hv_return_t hvf_view_take_back(hvf_vcpu *v);
/* Lets KVM finish the instruction, whatever it does with zeroes: a luna_error. */
int hvf_view_run_out(hvf_vcpu *v);

#endif
