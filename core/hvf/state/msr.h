/* SPDX-License-Identifier: MIT
 * Which MSRs the guest may access. */
#ifndef HVF_MSR_H
#define HVF_MSR_H

#include "hvf/base/cpu.h"

/* Makes all MSRs exit, when the VM is made. The lock is held. */
hv_return_t hvf_msr_begin(void);
void hvf_msr_drop_all(void);
/* A vCPU comes, which may access none, or goes. The lock is held. */
hv_return_t hvf_msr_join(void);
void hvf_msr_leave(hvf_vcpu *v);
/* Does the access of the open MSR exit if the vCPU may; false if it is the program's. */
bool hvf_msr_serve(hvf_vcpu *v);

#endif
