/* SPDX-License-Identifier: MIT
 * KVM memory slots: which slot a mapping needs, and carrying out a list of slot changes whole or
 * not at all. */
#ifndef LUNA_SLOTS_H
#define LUNA_SLOTS_H

#include "memory/space.h"

enum {
  LUNA_SLOT_PAGES = INT32_MAX /* the most that KVM takes */
};

/* One change: the slot of `mapping` appears or goes. */
typedef struct luna_slot_change {
  luna_mapping *mapping;
  bool add;
} luna_slot_change;

/* No slot goes over a multiple of this many bytes of guest-physical address; regions, each of which
 * has one slot, do not either. A window does: it is shown as a whole. */
uint64_t luna_slot_most(const luna_space *space);
bool luna_slot_needed(const luna_mapping *mapping);
/* Sets what the slot of a mapping with these rights would be kept from, after a change of the
 * rights. */
void luna_slot_choose(const luna_space *space, luna_mapping *mapping);
bool luna_slot_read_only(const luna_mapping *mapping);
/* Whether one slot serves both: the same place, the same host memory, the same kind of slot. */
bool luna_slot_same(const luna_mapping *one, const luna_mapping *other);

/* Carries the changes out in order; gives every added mapping its slot number. If KVM refuses one,
 * those before it are taken back and the status tells why. */
int luna_slots_apply(luna_space *space, luna_slot_change *changes, size_t count);
/* Makes KVM note the pages that the guest writes through the slots there are, or stop to. */
int luna_slots_log(luna_space *space, bool on);
void luna_slots_free(luna_space *space);

#endif
