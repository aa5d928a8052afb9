/* SPDX-License-Identifier: MIT
 * The clock that KVM gives guests (kvmclock): one a space, since a space is a VM of KVM's. */
#ifndef LUNA_CLOCK_H
#define LUNA_CLOCK_H

#include "memory/space.h"

/* What a clock shows, in nanoseconds, at a moment of luna_clock. */
typedef struct luna_clock_reading {
  uint64_t value;
  uint64_t moment;
} luna_clock_reading;

/* 0, or a negative status. A KVM that has no such clock has one that stands at 0. */
int luna_clock_read(const luna_space *space, luna_clock_reading *reading);
/* Makes the space's clock show at least what the other shows by now. */
int luna_clock_reach(const luna_space *space, const luna_clock_reading *other);
/* For a new space: its clock goes with the first one's. */
int luna_clock_join(const luna_vm *vm, const luna_space *space);

#endif
