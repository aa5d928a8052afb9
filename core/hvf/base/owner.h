/* SPDX-License-Identifier: MIT
 * Which vCPU the calling thread owns. */
#ifndef HVF_OWNER_H
#define HVF_OWNER_H

#include "hvf/base/machine.h"

/* The vCPU, if the calling thread owns it. */
hv_return_t hvf_owned(hv_vcpuid_t id, hvf_vcpu **v);
/* Whichever it owns, or NULL. */
hvf_vcpu *hvf_own(void);
/* Makes it own the vCPU, or none. The lock is held. */
void hvf_owner_set(hvf_vcpu *v);
/* In a child after fork: vCPUs are the parent's. */
void hvf_owner_forget(void);
/* Calls `release` with the vCPU that a thread of the system owns when it ends. Once. */
void hvf_owner_follow(void (*release)(void *v));

#endif
