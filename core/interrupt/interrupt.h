/* SPDX-License-Identifier: MIT
 * Interrupts for one vCPU, given to KVM with its events. */
#ifndef LUNA_INTERRUPT_H
#define LUNA_INTERRUPT_H

#include "lunavisor.h"

#include <stdbool.h>

/* Hands what waits to KVM, as far as the guest takes it now. 0, or a negative status.
 */
int luna_interrupt_enter(luna_vcpu *vcpu);
/* What the exit means that KVM makes when the guest accepts an interrupt: the kind, or 0. */
int luna_interrupt_window(luna_vcpu *vcpu);
/* Whether something waits that ends the HLT at which the vCPU stands. */
bool luna_interrupt_wakes(const luna_vcpu *vcpu);

#endif
