/* SPDX-License-Identifier: MIT
 * The time-stamp counter of a vCPU. */
#ifndef LUNA_TSC_H
#define LUNA_TSC_H

#include "seat/seat.h"

/* Gives another seat the frequency that the script has set. */
int luna_tsc_move(const luna_vcpu *vcpu, luna_seat *target);

/* Writes the counter itself. _UNSUPPORTED where it then shows something else. */
int luna_tsc_write(luna_vcpu *vcpu, uint64_t tsc);

#endif
