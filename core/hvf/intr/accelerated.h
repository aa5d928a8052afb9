/* SPDX-License-Identifier: MIT
 * Calls that need HV_VM_ACCEL_APIC. */
#ifndef HVF_ACCELERATED_H
#define HVF_ACCELERATED_H

#include "hvf/base/machine.h"

/* hvf_enter, and HV_UNSUPPORTED unless the VM has local APICs in KVM. */
hv_return_t hvf_enter_accelerated(void);
/* hvf_owned, likewise. */
hv_return_t hvf_owned_accelerated(hv_vcpuid_t id, hvf_vcpu **v);
/* Gets vCPU 0 out of the guest, so that it looks at the PICs before it goes on. The lock is
 * held. */
void hvf_signal_first(void);

/* A state that the program hands over, which begins with its version; NULL for none. */
hv_return_t hvf_check_version(const char *whose, const uint32_t *version, uint32_t expected);

#endif
