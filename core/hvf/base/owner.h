/* SPDX-License-Identifier: MIT
 * Which vCPU the calling thread owns. */
#ifndef HVF_OWNER_H
#define HVF_OWNER_H

#include <Hypervisor/hv_error.h>

#include "hvf/base/cpu.h"

/* Of the calling thread. */
extern _Thread_local hvf_vcpu *hvf_own_vcpu __attribute__((tls_model("initial-exec")));

/* Says why it does not own the vCPU. */
hv_return_t hvf_fail_owned(hv_vcpuid_t id);

/* The vCPU, if the calling thread owns it. */
static inline hv_return_t hvf_owned(hv_vcpuid_t id, hvf_vcpu **v) {
  *v = hvf_own_vcpu;
  return __builtin_expect(*v && (*v)->id == id, true) ? HV_SUCCESS : hvf_fail_owned(id);
}

/* Whichever it owns, or NULL. */
static inline hvf_vcpu *hvf_own(void) {
  return hvf_own_vcpu;
}

/* Makes it own the vCPU, or none. The lock is held. */
void hvf_owner_set(hvf_vcpu *v);
/* In a child after fork: vCPUs are the parent's. */
void hvf_owner_forget(void);
/* Calls `release` with the vCPU that a thread of the system owns when it ends. Once. */
void hvf_owner_follow(void (*release)(void *v));

#endif
