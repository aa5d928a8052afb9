/* SPDX-License-Identifier: MIT
 * The time that a vCPU spends in the guest. */
#ifndef LUNA_ACCOUNT_H
#define LUNA_ACCOUNT_H

#include "lunavisor.h"

/* Before and after each entry; before the vCPU leaves its seat, and when it has come to one. */
void luna_account_enter(luna_vcpu *vcpu);
void luna_account_leave(luna_vcpu *vcpu);
void luna_account_rise(luna_vcpu *vcpu);
void luna_account_sit(luna_vcpu *vcpu);

#endif
