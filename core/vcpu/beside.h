/* SPDX-License-Identifier: MIT
 * What a saved state has beside the groups of KVM's: interrupts that wait in the library, and the
 * clock that the guest is given. */
#ifndef LUNA_BESIDE_H
#define LUNA_BESIDE_H

#include "seat/seat.h"

/* Sections of their own, which states of older libraries do not have. The forms do not change. */
typedef enum luna_beside_tag {
  LUNA_BESIDE_WAITING = 11,
  LUNA_BESIDE_CLOCK = 12
} luna_beside_tag;

typedef struct luna_waiting {
  uint64_t vectors[4]; /* luna_vcpu.waiting */
  uint32_t posted;     /* luna_vcpu.posted */
  uint32_t pad;
} luna_waiting;

typedef struct luna_beside {
  luna_waiting waiting;
  uint64_t clock; /* nanoseconds; 0 for none */
  uint32_t there; /* bit n: the section with tag n */
} luna_beside;

/* Where a section's contents are, and their size; NULL for a tag that is none of these. */
void *luna_beside_bytes(luna_beside *beside, uint32_t tag, size_t *size);
/* `again`: the clock as it was when the counters were last read. */
int luna_beside_read(luna_vcpu *vcpu, luna_beside *beside, bool again);
/* Whether the vCPU can have it: LUNA_OK, or _ARGUMENT. */
int luna_beside_check(const luna_vcpu *vcpu, const luna_beside *beside);
/* The clock of each space reaches the state's; none goes back. Then, without fail, what waits. */
int luna_beside_write_clock(luna_vcpu *vcpu, const luna_beside *beside);
void luna_beside_write_waiting(luna_vcpu *vcpu, const luna_beside *beside);

#endif
