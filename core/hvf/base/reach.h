/* SPDX-License-Identifier: MIT
 * The vCPUs of the process for whoever interrupts them: any thread, and the handler of a signal,
 * which may have come to a thread that holds the lock. So this has no lock. */
#ifndef HVF_REACH_H
#define HVF_REACH_H

#include <Hypervisor/hv_error.h>

#include "hvf/base/cpu.h"

/* Whether there is a VM. These three with the lock held. */
void hvf_reach_open(bool open);
void hvf_reach_add(hvf_vcpu *v);
/* Nobody has the vCPU in hand when this returns. */
void hvf_reach_remove(hvf_vcpu *v);
/* In a child after fork: there are none. */
void hvf_reach_forget(void);

/* What hv_vcpu_interrupt does: none of them is interrupted if one does not exist. */
hv_return_t hvf_reach_interrupt(const hv_vcpuid_t *ids, unsigned int count);

#endif
