/* SPDX-License-Identifier: MIT
 * The MSRs of a vCPU. */
#ifndef LUNA_MSR_H
#define LUNA_MSR_H

#include "lunavisor.h"
#include "seat/group.h"

/* After a write to the time-stamp counter: the counters of the vCPU's seats part. */
void luna_msr_part_counters(luna_vcpu *vcpu);

/* Gives the MSRs of a state the order of those that are here, which have to include them: another
 * kernel lists others, in another order. One that was never written is no loss. */
int luna_msrs_match(luna_msrs *wanted, const luna_msrs *here);

#endif
