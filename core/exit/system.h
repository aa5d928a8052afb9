/* SPDX-License-Identifier: MIT
 * The system area of a vCPU: where it goes, and what becomes of it. */
#ifndef LUNA_SYSTEM_AREA_H
#define LUNA_SYSTEM_AREA_H

#include "lunavisor.h"

#include <stdbool.h>

/* Makes the area of a mode that needs one, in space 0 where the vCPU is; `*area` is then its host
 * memory, else NULL. */
int luna_system_begin(luna_vcpu *vcpu, const luna_vcpu_options *options, const uint8_t **area);
/* Maps the area that the library allocated in another space too, where nothing is in its place:
 * *mapped then. */
int luna_system_follow(luna_vcpu *vcpu, uint32_t space, bool *mapped);
/* Unmaps what is left of it in a space, or in each, unless the script has put something else
 * there. */
void luna_system_leave(luna_vcpu *vcpu, uint32_t space);
void luna_system_end(luna_vcpu *vcpu);

#endif
