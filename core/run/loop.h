/* SPDX-License-Identifier: MIT
 * The run loop, for whoever runs a vCPU. */
#ifndef LUNA_LOOP_H
#define LUNA_LOOP_H

#include "vcpu/vcpu.h"

/* Of every vCPU. */
extern const luna_finisher luna_loop_finisher;

/* Makes the calling thread the one that runs the vCPU, or fails with _STATE and says that it cannot
 * be `done` ("run"); and ends that. */
int luna_vcpu_claim(luna_vcpu *vcpu, const char *done);
void luna_vcpu_disclaim(luna_vcpu *vcpu);
/* The next exit, for whoever runs the vCPU: one that nobody has been given or that is open, or what
 * `bring` gives. */
int luna_vcpu_advance(luna_vcpu *vcpu, uint64_t deadline,
                      int (*bring)(luna_vcpu *vcpu, uint64_t deadline));
/* Enters the guest until something happens. */
int luna_vcpu_enter(luna_vcpu *vcpu, uint64_t deadline);

#endif
