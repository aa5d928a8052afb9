/* SPDX-License-Identifier: MIT
 * The MSRs of a vCPU. */
#ifndef LUNA_MSR_H
#define LUNA_MSR_H

#include "lunavisor.h"

/* After a write to the time-stamp counter: the counters of the vCPU's seats part. */
void luna_msr_part_counters(luna_vcpu *vcpu);

#endif
