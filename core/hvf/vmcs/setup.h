/* SPDX-License-Identifier: MIT
 * The fields of the VMCS as a whole. */
#ifndef HVF_SETUP_H
#define HVF_SETUP_H

#include "hvf/base/cpu.h"

/* Whether KVM follows what has been written since the last entry. */
hv_return_t hvf_setup_check(hvf_vcpu *v);
/* A PDPTE, by its index in kept_fields: the guest's own once it has been entered. */
uint64_t hvf_setup_pdpte(const hvf_vcpu *v, int index);

#endif
