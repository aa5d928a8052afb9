/* SPDX-License-Identifier: MIT
 * The VMCS's controls. */
#ifndef HVF_CONTROL_H
#define HVF_CONTROL_H

#include <Hypervisor/hv_vmx.h>

#include "hvf/base/cpu.h"

/* The bits that must be 1, and those that may be, of one of the five kinds of controls. */
void hvf_control_bits(hv_vmx_capability_t kind, uint32_t *must, uint32_t *may);
void hvf_control_reset(hvf_vcpu *v);
hv_return_t hvf_control_get(hvf_vcpu *v, hv_vmx_capability_t kind, uint64_t *value);
hv_return_t hvf_control_set(hvf_vcpu *v, hv_vmx_capability_t kind, uint64_t value);

#endif
