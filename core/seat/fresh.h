/* SPDX-License-Identifier: MIT
 * The state of a vCPU as KVM makes it. */
#ifndef LUNA_FRESH_H
#define LUNA_FRESH_H

#include "seat/seat.h"

/* Gives a seat that a former vCPU has used the state of a fresh one. */
int luna_seat_reset(luna_seat *seat, uint32_t id);

/* For a seat that nobody has used and that has no LAPIC: where the descriptors are nearly gone, its
 * state is remembered as that of a fresh one, or no seat could be used again. */
void luna_seat_note_fresh(luna_seat *seat);

#endif
