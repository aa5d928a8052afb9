/* SPDX-License-Identifier: MIT
 * KVM memory slots: which slot a mapping needs, and carrying out a list of slot changes whole or
 * not at all. */
#ifndef LUNA_SLOTS_H
#define LUNA_SLOTS_H

#include "space.h"

/* One change: the slot of `mapping` appears or goes. */
typedef struct luna_slot_change {
  luna_mapping *mapping;
  bool add;
} luna_slot_change;

bool luna_slot_needed(uint32_t rights);
uint32_t luna_slot_flags(uint32_t rights);

/* Carries the changes out in order; gives every added mapping its slot number. If KVM refuses one,
 * those before it are taken back and the status tells why. */
int luna_slots_apply(luna_space *space, luna_slot_change *changes, size_t count);
void luna_slots_free(luna_space *space);

#endif
