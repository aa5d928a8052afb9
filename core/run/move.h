/* SPDX-License-Identifier: MIT
 * Moving a vCPU to another space. */
#ifndef LUNA_MOVE_H
#define LUNA_MOVE_H

#include "seat/seat.h"

/* Uses the seat in the space from now on; leaves the seat, if any. */
void luna_move_sit(luna_vcpu *vcpu, luna_space *space, luna_seat *seat);
void luna_move_rise(luna_vcpu *vcpu);
/* The move that waits. 0, or a negative status. */
int luna_move_finish(luna_vcpu *vcpu);
void luna_move_cancel(luna_vcpu *vcpu);

#endif
