/* SPDX-License-Identifier: MIT
 * Two groups of state: the MSRs, of which only those that differ are written, and the time-stamp
 * counter, which runs on. */
#ifndef LUNA_MSRS_H
#define LUNA_MSRS_H

#include "seat/seat.h"

int luna_seat_fetch_msrs(luna_seat *seat);
int luna_seat_write_msrs(luna_seat *seat, const luna_held *wanted);
int luna_seat_fetch_counters(luna_seat *seat);
int luna_seat_write_counters(luna_seat *seat, const luna_held *wanted);
/* Makes the target's counter go with the source's: by its offset to the host's, or where this KVM
 * does not tell it, by its value. */
int luna_seat_copy_tsc(luna_seat *target, const luna_seat *source);

#endif
