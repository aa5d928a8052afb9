/* SPDX-License-Identifier: MIT
 * Exits that come seldom. */
#ifndef LUNA_RARE_H
#define LUNA_RARE_H

#include "lunavisor.h"

/* As luna_exit_decode. */
int luna_exit_rare(luna_vcpu *vcpu);

#endif
