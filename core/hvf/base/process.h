/* SPDX-License-Identifier: MIT
 * The VM of the process, and its lock. */
#ifndef HVF_PROCESS_H
#define HVF_PROCESS_H

#include "hvf/base/machine.h"

extern hvf_vm hvf_the_vm;

/* Takes the lock if there is a VM; HV_NO_DEVICE otherwise, without the lock. */
hv_return_t hvf_enter(void);
void hvf_leave(void);
/* Whether the space exists. The lock is held. */
bool hvf_has_space(hv_vm_space_t asid);
/* The vCPU of that number, or NULL. The lock is held. */
hvf_vcpu *hvf_find(hv_vcpuid_t id);

#endif
