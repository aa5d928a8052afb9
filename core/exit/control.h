/* SPDX-License-Identifier: MIT
 * The controls that a vCPU follows: its kernel has a copy of them in the seat where it is. */
#ifndef LUNA_EXIT_CONTROL_H
#define LUNA_EXIT_CONTROL_H

#include "vcpu/vcpu.h"

/* It is in its seat now, and about to leave it. */
void luna_control_sit(luna_vcpu *vcpu);
void luna_control_rise(luna_vcpu *vcpu);
/* An exit that one asked for, from the run page; its kind. */
int luna_control_decode(luna_vcpu *vcpu);
/* Takes what the run page's union has there into the exit's words. */
void luna_control_tell(luna_vcpu *vcpu, uint32_t offset);

#endif
