/* SPDX-License-Identifier: MIT
 * What KVM does in every space of a VM: MSR exits, eventfds, collected writes. The VM's lock is
 * held. */
#ifndef LUNA_EVENT_H
#define LUNA_EVENT_H

#include "vm.h"

/* claim.c: makes a new space do what the others do. A failure leaves the space to be freed. */
int luna_event_join(const luna_vm *vm, luna_space *space);

/* msr.c: makes the MSRs of the VM's traps, one of them just added (or NULL) and one about to be
 * removed (or NULL), exits in every space; all or none. */
int luna_msr_apply(luna_vm *vm, const luna_trap *added, const luna_trap *removed);
int luna_msr_join(const luna_vm *vm, luna_space *space);
/* Whether KVM can make exits of this range. */
int luna_msr_check(uint64_t first, uint64_t length);

/* eventfd.c */
int luna_eventfds_join(const luna_vm *vm, const luna_space *space);
void luna_eventfds_free(luna_vm *vm);

/* coalesced.c: `end` takes the trap's zones away. */
int luna_coalesced_join(const luna_vm *vm, const luna_space *space);
void luna_coalesced_end(luna_vm *vm, const luna_trap *trap);

#endif
