/* SPDX-License-Identifier: MIT
 * The event that the guest takes at its next entry. */
#ifndef HVF_ENTRY_H
#define HVF_ENTRY_H

#include "hvf/base/cpu.h"

/* Whether KVM can inject what the interruption information says. */
hv_return_t hvf_entry_check(uint64_t info);
/* Hands the event of VMCS_CTRL_VMENTRY_IRQ_INFO to the core. */
hv_return_t hvf_entry_inject(hvf_vcpu *v);

#endif
