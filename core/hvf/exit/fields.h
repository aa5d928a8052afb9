/* SPDX-License-Identifier: MIT
 * What the exit fields of the VMCS say. */
#ifndef HVF_FIELDS_H
#define HVF_FIELDS_H

#include "hvf/base/cpu.h"

hv_return_t hvf_exit_qualification(hvf_vcpu *v, uint64_t *value);
hv_return_t hvf_exit_length(hvf_vcpu *v, uint64_t *value);
hv_return_t hvf_exit_linear(hvf_vcpu *v, uint64_t *value);
hv_return_t hvf_exit_instruction(hvf_vcpu *v, uint64_t *value);
/* Why VMLAUNCH failed, as VMCS_RO_INSTR_ERROR has it; 0 if it did not. */
uint32_t hvf_entry_error(const hvf_vcpu *v);

#endif
