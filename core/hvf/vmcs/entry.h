/* SPDX-License-Identifier: MIT
 * The event that the guest takes at its next entry. */
#ifndef HVF_ENTRY_H
#define HVF_ENTRY_H

#include "hvf/base/cpu.h"

/* Whether KVM can inject what the interruption information says. */
hv_return_t hvf_entry_check(uint64_t info);
/* Whether it is a pending exit of the monitor trap flag (SDM Vol. 3, 27.6.2). */
bool hvf_entry_is_step(uint32_t info);
/* Hands the event of VMCS_CTRL_VMENTRY_IRQ_INFO to the core. */
hv_return_t hvf_entry_inject(hvf_vcpu *v);
/* After a run: an event that was handed over and that the guest has not taken, since it was not
 * entered or does not accept it, is in VMCS_CTRL_VMENTRY_IRQ_INFO again, where programs look before
 * they inject the next one. */
void hvf_entry_take_back(hvf_vcpu *v, uint32_t event);

#endif
