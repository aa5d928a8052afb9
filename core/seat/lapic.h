/* SPDX-License-Identifier: MIT
 * One group of state: the LAPIC's register page, whose timer KVM starts when it is written. */
#ifndef LUNA_LAPIC_H
#define LUNA_LAPIC_H

#include "seat/seat.h"

/* Offsets in the register page (SDM Vol. 3, table 11-1), for luna_lapic_get and _set. */
enum {
  LUNA_LAPIC_ID = 0x20,
  LUNA_LAPIC_VERSION = 0x30,
  LUNA_LAPIC_TPR = 0x80,
  LUNA_LAPIC_DFR = 0xe0,
  LUNA_LAPIC_SVR = 0xf0,
  LUNA_LAPIC_IRR = 0x200,
  LUNA_LAPIC_LVT_CMCI = 0x2f0,
  LUNA_LAPIC_LVT_TIMER = 0x320,
  LUNA_LAPIC_LVT_LINT0 = 0x350,
  LUNA_LAPIC_LVT_ERROR = 0x370,
  LUNA_LAPIC_INITIAL_COUNT = 0x380,
  LUNA_LAPIC_CURRENT_COUNT = 0x390
};

enum {
  LUNA_LVT_MASKED = 0x10000,
  LUNA_LVT_DEADLINE = 0x40000, /* of the timer's mode, bits 18:17 */
  LUNA_LVT_MODE = 0x60000
};

uint32_t luna_lapic_get(const struct kvm_lapic_state *page, uint32_t offset);
void luna_lapic_set(struct kvm_lapic_state *page, uint32_t offset, uint32_t value);

/* As the ioctls, but a one-shot timer that has run out is not started again by a write, and keeps
 * its initial count for whoever reads it before the guest runs. 0, or -1 with errno. */
int luna_lapic_read(const luna_seat *seat, struct kvm_lapic_state *page);
int luna_lapic_write(luna_seat *seat, const struct kvm_lapic_state *page);
/* Whether the page that was read may hide an interrupt of a one-shot timer that has run out since
 * KVM last looked: it waits where no call shows it, and a write of the page loses it. */
bool luna_lapic_may_be_due(const luna_seat *seat, const struct kvm_lapic_state *page);
/* A timer that has run out since the page was `before`, while the guest did not run, is to fire as
 * soon as the page is written. */
void luna_lapic_keep_due(struct kvm_lapic_state *page, const struct kvm_lapic_state *before);

/* Makes the current count in the copy that of the moment of the seat's counters; with no copy of
 * those, the moment is now. */
void luna_lapic_date(luna_seat *seat);

/* For the table of groups. */
int luna_seat_fetch_lapic(luna_seat *seat);
int luna_seat_write_lapic(luna_seat *seat, const luna_held *wanted);

#endif
