/* SPDX-License-Identifier: MIT
 * A vCPU's LAPIC in KVM, and whether the processor runs or waits. */
#ifndef LUNA_APIC_H
#define LUNA_APIC_H

#include "seat/seat.h"

/* Whether the vCPU waits to be started or woken, without being in the guest. */
bool luna_apic_waits(luna_vcpu *vcpu);
/* Around KVM_RUN, with LUNA_ATTEND_START. */
int luna_apic_enter(luna_vcpu *vcpu);
void luna_apic_left(luna_vcpu *vcpu);
/* The state in which a vCPU begins: runnable, or waiting. */
int luna_apic_begin(luna_vcpu *vcpu, const luna_vcpu_options *options);
/* Makes the LAPIC and MP state of a seat those of a fresh vCPU. */
int luna_apic_reset(const luna_vcpu *vcpu);
/* Lets KVM act on INIT and SIPI that have come: they change registers. */
int luna_apic_settle(luna_vcpu *vcpu);
/* Takes LAPIC and MP state over to another seat. */
int luna_apic_move(luna_vcpu *vcpu, luna_seat *target);

#endif
