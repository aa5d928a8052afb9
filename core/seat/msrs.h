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

#endif
