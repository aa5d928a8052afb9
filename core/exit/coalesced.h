/* SPDX-License-Identifier: MIT
 * Writes that KVM collects: their zones in every space, and taking them out. */
#ifndef LUNA_COALESCED_H
#define LUNA_COALESCED_H

#include "exit/trap.h"
#include "memory/space.h"

/* The VM's lock is held; `end` takes the trap's zones away. */
int luna_coalesced_join(const luna_vm *vm, const luna_space *space);
void luna_coalesced_end(luna_vm *vm, const luna_trap *trap);

/* For the vCPU's thread: the next write that KVM has collected, as an open exit; 0 if there is
 * none. */
int luna_coalesced_next(luna_vcpu *vcpu);
/* Whether there are any. */
bool luna_coalesced_waiting(const luna_vcpu *vcpu);

#endif
