/* SPDX-License-Identifier: MIT
 * Fields of the VMCS that are kept. */
#ifndef HVF_KEPT_H
#define HVF_KEPT_H

#include "hvf/base/cpu.h"

/* The index in kept_fields of the field with that number; -1 if it is not kept. */
int hvf_kept_find(uint32_t number);
/* The bits that it can have. */
uint64_t hvf_kept_may(int index);
hv_return_t hvf_kept_set(hvf_vcpu *v, int index, uint64_t value);
/* Whether the page faults that are to exit are none. */
hv_return_t hvf_kept_check_faults(const hvf_vcpu *v);

#endif
