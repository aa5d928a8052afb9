/* SPDX-License-Identifier: MIT
 * What of a VM's ports, addresses and MSRs is claimed, and how: traps, eventfds, collected
 * writes. */
#ifndef LUNA_CLAIM_H
#define LUNA_CLAIM_H

#include "exit/trap.h"
#include "memory/space.h"

/* In each VM, under its lock. */
typedef struct luna_claims {
  luna_traps traps;
  struct luna_event *eventfds; /* eventfd.c: a list */
  bool coalesced;              /* some trap's writes are, or were, collected by KVM */
  bool unknown_msrs;           /* luna_vm_options.unknown_msrs */
  bool hypercalls;             /* luna_vm_hypercalls */
} luna_claims;

void luna_claims_end(luna_claims *claims);
/* Makes a new space do what the others do. A failure leaves the space to be freed. */
int luna_claims_join(const luna_vm *vm, luna_space *space);

#endif
