/* SPDX-License-Identifier: MIT
 * KVM's filter of MSRs: which of them are exits, in every space. The VM's lock is held. */
#ifndef LUNA_MSR_FILTER_H
#define LUNA_MSR_FILTER_H

#include "exit/trap.h"
#include "memory/space.h"

/* Makes the MSRs of the VM's traps exits in every space; all or none. One of them has just been
 * added, or NULL, and one is about to be removed, or NULL. A space without a vCPU in the guest only
 * has its gate closed, until luna_msr_catch_up. */
int luna_msr_apply(luna_vm *vm, const luna_trap *added, const luna_trap *removed);
/* For a vCPU that has found its space's gate closed. The lock is taken inside: what closed the gate
 * for a moment is over when this returns. */
int luna_msr_catch_up(luna_vm *vm, luna_space *space);
int luna_msr_join(const luna_vm *vm, luna_space *space);
/* Whether KVM can make exits of this range. */
int luna_msr_check(const luna_vm *vm, uint64_t first, uint64_t length);

#endif
