/* SPDX-License-Identifier: MIT
 * What CPUID answers in the guest. */
#ifndef LUNA_CPUID_H
#define LUNA_CPUID_H

#include "seat/seat.h"

/* Finds the answer to a leaf; NULL where there is none. */
const struct kvm_cpuid_entry2 *luna_cpuid_find(const struct kvm_cpuid2 *table, uint32_t leaf,
                                               uint32_t subleaf);
/* The width of a physical address as the vCPU has it (leaf 0x80000008), the host's at most. */
unsigned luna_cpuid_address_bits(const luna_vcpu *vcpu);
/* Gives a new vCPU its table and its seat there. */
int luna_cpuid_begin(luna_vcpu *vcpu);
/* Gives a further seat the vCPU's table. */
int luna_cpuid_follow(luna_vcpu *vcpu, luna_seat *seat);
void luna_cpuid_end(luna_vcpu *vcpu);
/* For LUNA_ATTEND_CPUID: why the vCPU cannot run. */
int luna_cpuid_refuse(const luna_vcpu *vcpu);

#endif
