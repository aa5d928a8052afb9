/* SPDX-License-Identifier: MIT
 * Debug registers, XCR0, and the control registers of x87 and SSE: groups that KVM moves by ioctl,
 * whose copies the seat holds until the guest is entered. */
#ifndef LUNA_EXTENDED_H
#define LUNA_EXTENDED_H

#include "lunavisor.h"

int luna_extended_get(luna_vcpu *vcpu, int reg, uint64_t *value);
int luna_extended_set(luna_vcpu *vcpu, int reg, uint64_t value);
/* Before a write: finishes the instruction of an answered exit, which might change the same. */
int luna_extended_settle(luna_vcpu *vcpu);
/* The copy of the extended state, or NULL with an error. */
uint8_t *luna_extended_area(luna_vcpu *vcpu);
/* Hands the copy to KVM, `components` of it (XSTATE_BV bits) being in use from now on. Forgets the
 * copy if that fails. */
int luna_extended_write(luna_vcpu *vcpu, uint64_t components);

#endif
