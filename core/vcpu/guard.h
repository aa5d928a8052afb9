/* SPDX-License-Identifier: MIT
 * Who may touch a vCPU: while its own thread has it, nobody else. */
#ifndef LUNA_GUARD_H
#define LUNA_GUARD_H

#include "memory/vm.h"
#include "vcpu/vcpu.h"

/* The calling thread is the one that runs the vCPU; NULL: it runs none. What it was before. */
const luna_vcpu *luna_guard_own(const luna_vcpu *vcpu);
bool luna_guard_owns(const luna_vcpu *vcpu);
/* Says why a call on a held vCPU, or another process's, fails: _STATE; LUNA_OK if the vCPU's own
 * thread asks. */
int luna_guard_refuse(const luna_vcpu *vcpu);

/* Whether anybody may touch it. */
static inline bool luna_vcpu_free(const luna_vcpu *which) {
  bool held = atomic_load_explicit(&which->held, memory_order_acquire);
  return __builtin_expect(!(held | which->vm->foreign), true);
}

/* For every public call on a vCPU: LUNA_OK unless its thread has it, or another process; _STATE
 * then. */
static inline int luna_vcpu_guard(const luna_vcpu *which) {
  return luna_vcpu_free(which) ? LUNA_OK : luna_guard_refuse(which);
}

#endif
