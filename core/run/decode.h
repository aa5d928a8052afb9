/* SPDX-License-Identifier: MIT
 * What an exit means, whichever part of the core it concerns. */
#ifndef LUNA_DECODE_H
#define LUNA_DECODE_H

#include "lunavisor.h"

/* The kind of the exit that KVM has made, or 0 where the core has dealt with it and the guest goes
 * on. */
int luna_loop_decode(luna_vcpu *vcpu);

#endif
