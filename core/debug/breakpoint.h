/* SPDX-License-Identifier: MIT
 * The breakpoints of a vCPU. */
#ifndef LUNA_BREAKPOINT_H
#define LUNA_BREAKPOINT_H

#include "debug/debug.h"

/* Makes vcpu->debug, if there is none. */
int luna_debug_open(luna_vcpu *vcpu);
/* Makes the next entries ask for luna_debug_entry. */
void luna_debug_attend(luna_vcpu *vcpu);
/* Whether a breakpoint is on the instruction at the address. */
bool luna_debug_breaks_before(const luna_debug *debug, uint64_t gva);
void luna_debug_end(luna_vcpu *vcpu);
/* Refuses a kind, address and size that make no breakpoint. */
int luna_debug_check_shape(int kind, uint64_t gva, uint32_t size);
/* Sets a breakpoint without asking whether the guest would stop there. */
int luna_debug_add(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size, uint32_t *breakpoint);

#endif
