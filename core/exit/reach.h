/* SPDX-License-Identifier: MIT
 * Whether an exception of the guest becomes an exit. */
#ifndef LUNA_REACH_H
#define LUNA_REACH_H

#include "lunavisor.h"

/* LUNA_OK where it does, or where the vCPU has no system area or the guest an IDT of its own;
 * _NOT_FOUND, and the message says what does not lead to the system area. */
int luna_reach_check(luna_vcpu *vcpu);

#endif
