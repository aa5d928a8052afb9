/* SPDX-License-Identifier: MIT
 * The LAPIC timer of a vCPU that does not run. */
#ifndef LUNA_TIMER_H
#define LUNA_TIMER_H

#include "lunavisor.h"

/* Reads the LAPIC into the seat's copy, to be written somewhere: a one-shot timer that has run out
 * since the guest last ran is in its IRR. While an exit is open that cannot be: then the copy
 * counts from 1, so that an interrupt comes twice rather than never. For a vCPU with a LAPIC in
 * KVM. */
int luna_timer_fetch(luna_vcpu *vcpu);

#endif
