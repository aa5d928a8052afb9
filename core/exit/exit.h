/* SPDX-License-Identifier: MIT
 * What KVM's run page says, as an exit record. */
#ifndef LUNA_EXIT_H
#define LUNA_EXIT_H

#include "lunavisor.h"

struct kvm_coalesced_mmio;

/* The kind of the exit that KVM has made, or 0 where the core has dealt with it and the guest goes
 * on. */
int luna_exit_decode(luna_vcpu *vcpu);
/* The same for a KVM_RUN that failed with EFAULT. */
int luna_exit_host_fault(luna_vcpu *vcpu);
/* An open exit for a write that KVM has collected; 0 where the core has answered it. */
int luna_exit_collected(luna_vcpu *vcpu, const struct kvm_coalesced_mmio *write);
/* Records KVM_EXIT_INTERNAL_ERROR as it is. */
void luna_exit_internal(luna_vcpu *vcpu);
/* If that is for a fetch that no region allows: the kind of that exit, else 0. */
int luna_exit_fetch(luna_vcpu *vcpu);
/* The same where KVM has no memory to enter with. */
int luna_exit_no_memory(luna_vcpu *vcpu);

#endif
