/* SPDX-License-Identifier: MIT
 * Dropping the exit at which a vCPU stands. */
#ifndef LUNA_DROP_H
#define LUNA_DROP_H

#include "lunavisor.h"

/* luna_vcpu_drop, for an exit that is open. */
int luna_drop_exit(luna_vcpu *vcpu);
/* The vCPU goes on elsewhere: no exit is left of where it stands. */
int luna_drop_place(luna_vcpu *vcpu);

#endif
